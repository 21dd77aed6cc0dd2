#include <re2/re2.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "configs/error.h"
#include "reward/extract.h"
#include "reward/json_schema.h"
#include "reward/rule_functions.h"

namespace temper::reward {
namespace {

constexpr std::size_t kMaxPattern = 8192;
constexpr std::string_view kThink = "<think>", kThinkEnd = "</think>";
constexpr std::string_view kAnswer = "<answer>", kAnswerEnd = "</answer>";

std::size_t CountOf(std::string_view text, std::string_view what) {
  std::size_t count = 0;
  for (std::size_t at = text.find(what); at != std::string_view::npos;
       at = text.find(what, at + what.size())) {
    ++count;
  }
  return count;
}

/// White space, one <answer> element, white space.
bool IsOneAnswer(std::string_view text) {
  text = Trim(text);
  return CountOf(text, kAnswer) == 1 && CountOf(text, kAnswerEnd) == 1 &&
         text.compare(0, kAnswer.size(), kAnswer) == 0 && text.size() >= kAnswerEnd.size() &&
         text.substr(text.size() - kAnswerEnd.size()) == kAnswerEnd;
}

/// The last pattern stays compiled: a run uses one.
const RE2& Compiled(const std::string& pattern) {
  thread_local std::string known;
  thread_local std::unique_ptr<RE2> compiled;
  if (compiled != nullptr && known == pattern) return *compiled;
  if (pattern.size() > kMaxPattern) {
    throw std::invalid_argument("option pattern: at most 8192 bytes");
  }
  RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(8 << 20);
  compiled = std::make_unique<RE2>(pattern, options);
  known = pattern;
  if (!compiled->ok()) {
    const std::string why = compiled->error();
    compiled.reset();
    throw std::invalid_argument("option pattern: " + configs::Quote(pattern) + ": " + why +
                                " (RE2 has no look-around and no back-references)");
  }
  return *compiled;
}

std::vector<std::string> TagNames(const RuleInput& input) {
  if (input.options == nullptr || !input.options->contains("tags")) return {"think", "answer"};
  const Json& list = (*input.options)["tags"];
  std::vector<std::string> names;
  for (const Json& name : list.is_array() ? list : Json::array({list})) {
    if (!name.is_string() || name.get_ref<const std::string&>().empty()) {
      throw std::invalid_argument("option tags: must be a list of names");
    }
    names.push_back(name.get<std::string>());
  }
  if (names.empty()) throw std::invalid_argument("option tags: must be a list of names");
  return names;
}

/// The fenced block or the outermost brackets that a text has around its JSON.
std::string_view JsonPart(std::string_view text) {
  std::size_t fence = text.find("```json");
  if (fence != std::string_view::npos) {
    fence = text.find('\n', fence);
    const std::size_t end = fence == std::string_view::npos ? fence : text.find("```", fence);
    if (end != std::string_view::npos) return text.substr(fence, end - fence);
  }
  const std::size_t begin = text.find_first_of("{[");
  if (begin == std::string_view::npos) return text;
  const std::size_t end = text.find_last_of(text[begin] == '{' ? '}' : ']');
  return end == std::string_view::npos || end < begin ? text : text.substr(begin, end - begin + 1);
}

}  // namespace

std::optional<double> ThinkFormat(const RuleInput& input) {
  const bool prefilled = FlagOption(input, "prefilled", false);
  const bool answer = FlagOption(input, "answer", false);
  std::string_view text = input.completion;
  if (!prefilled) {
    if (text.compare(0, kThink.size(), kThink) != 0) return 0.0;
    text.remove_prefix(kThink.size());
  }
  if (text.find(kThink) != std::string_view::npos) return 0.0;
  const std::size_t end = text.find(kThinkEnd);
  if (end == std::string_view::npos) return 0.0;
  if (!answer) return 1.0;
  return IsOneAnswer(text.substr(end + kThinkEnd.size())) ? 1.0 : 0.0;
}

std::optional<double> Tags(const RuleInput& input) {
  const std::vector<std::string> names = TagNames(input);
  const bool ordered = FlagOption(input, "order", true);
  double good = 0;
  std::size_t last = 0;
  bool in_order = true;
  for (const std::string& name : names) {
    const std::string open = "<" + name + ">", close = "</" + name + ">";
    const std::size_t begin = input.completion.find(open), end = input.completion.find(close);
    if (CountOf(input.completion, open) != 1 || CountOf(input.completion, close) != 1 ||
        end < begin) {
      continue;
    }
    ++good;
    in_order = in_order && begin >= last;
    last = end;
  }
  if (ordered && !in_order) return 0.0;
  return good / static_cast<double>(names.size());
}

std::optional<double> Regex(const RuleInput& input) {
  const std::string pattern = TextOption(input, "pattern", "");
  if (pattern.empty()) throw std::invalid_argument("option pattern is required");
  const RE2& re = Compiled(pattern);
  const std::int64_t group = IntegerOption(input, "group", -1, -1, 99);
  if (group > re.NumberOfCapturingGroups()) {
    throw std::invalid_argument("option group: the pattern has only " +
                                std::to_string(re.NumberOfCapturingGroups()) + " groups");
  }
  const bool full = FlagOption(input, "full", false);
  std::vector<re2::StringPiece> groups(static_cast<std::size_t>(std::max<std::int64_t>(group, 0)) +
                                       1);
  const re2::StringPiece text(input.completion.data(), input.completion.size());
  const bool matched = re.Match(text, 0, text.size(), full ? RE2::ANCHOR_BOTH : RE2::UNANCHORED,
                                groups.data(), static_cast<int>(groups.size()));
  if (!matched) return 0.0;
  if (group < 0) return 1.0;
  if (!input.answer) return std::nullopt;
  const re2::StringPiece& found = groups[static_cast<std::size_t>(group)];
  return SameAnswer({found.data(), found.size()}, *input.answer) ? 1.0 : 0.0;
}

std::optional<double> JsonRule(const RuleInput& input) {
  const Json* schema = nullptr;
  if (input.options != nullptr && input.options->contains("schema")) {
    schema = &(*input.options)["schema"];
    CheckSchema(*schema);
  }
  const bool whole = FlagOption(input, "whole", true);
  try {
    configs::JsonLimits limits;
    limits.max_bytes = std::size_t{16} << 20;
    const Json value = configs::ParseJson(
        whole ? Trim(input.completion) : JsonPart(input.completion), "completion", limits);
    return schema == nullptr || FitsSchema(value, *schema) ? 1.0 : 0.0;
  } catch (const UserError&) {
    return 0.0;
  }
}

}  // namespace temper::reward
