#include <string>

#include "reward/extract.h"
#include "reward/math_equal.h"
#include "reward/rule_functions.h"

namespace temper::reward {
namespace {

/// The rest of the sentence after the last "answer is" or "answer:", without what is around it.
std::optional<std::string_view> AfterAnswerIs(std::string_view text) {
  std::optional<std::string_view> found;
  for (const std::string_view phrase : {"nswer is", "nswer:", "nswer is:"}) {
    const std::size_t at = text.rfind(phrase);
    if (at == std::string_view::npos) continue;
    std::string_view rest = text.substr(at + phrase.size());
    while (!rest.empty() && (IsSpace(rest[0]) || rest[0] == ':' || rest[0] == '*')) {
      rest.remove_prefix(1);
    }
    if (found && found->data() > rest.data()) continue;
    found = rest;
  }
  if (!found) return std::nullopt;
  std::string_view rest = found->substr(0, found->find('\n'));
  if (const std::size_t end = rest.find(". "); end != std::string_view::npos) {
    rest = rest.substr(0, end);
  }
  while (!rest.empty() && (IsSpace(rest.back()) || rest.back() == '.' || rest.back() == '*')) {
    rest.remove_suffix(1);
  }
  if (rest.empty()) return std::nullopt;
  return rest;
}

/// The last formula between dollar signs, \( \) or \[ \].
std::optional<std::string_view> LastFormula(std::string_view text) {
  const std::size_t close = text.rfind('$');
  if (close != std::string_view::npos && close > 0) {
    std::size_t end = close;
    while (end > 0 && text[end - 1] == '$') --end;
    const std::size_t open = end == 0 ? std::string_view::npos : text.rfind('$', end - 1);
    if (open != std::string_view::npos && open + 1 < end)
      return text.substr(open + 1, end - open - 1);
  }
  for (const auto& [open, end] :
       {std::pair<std::string_view, std::string_view>{"\\(", "\\)"}, {"\\[", "\\]"}}) {
    const std::size_t last = text.rfind(end);
    if (last == std::string_view::npos) continue;
    const std::size_t first = text.substr(0, last).rfind(open);
    if (first != std::string_view::npos) return text.substr(first + 2, last - first - 2);
  }
  return std::nullopt;
}

std::optional<std::string_view> FinalAnswer(std::string_view completion) {
  if (auto boxed = LastBoxed(completion)) return boxed;
  if (auto marked = MarkedAnswer(completion)) return marked;
  if (auto said = AfterAnswerIs(completion)) return said;
  if (auto formula = LastFormula(completion)) return formula;
  return LastNumber(completion);
}

/// A dataset's answer may be a whole solution.
std::string_view Gold(std::string_view answer) {
  if (const auto boxed = LastBoxed(answer)) return *boxed;
  if (const auto hashes = LastHashes(answer)) return *hashes;
  return answer;
}

/// The answer is the same for the samples of a group.
const MathAnswer& Wanted(std::string_view answer) {
  thread_local std::string known;
  thread_local MathAnswer read;
  thread_local bool valid = false;
  if (!valid || known != answer) {
    valid = false;
    read = ReadAnswer(Gold(answer));
    known = std::string(answer);
    valid = true;
  }
  return read;
}

}  // namespace

std::optional<double> Math(const RuleInput& input) {
  const auto decimals = static_cast<int>(IntegerOption(input, "decimals", 6, 0, 12));
  const bool whole = FlagOption(input, "whole", false);
  const MathAnswer& wanted = Wanted(*input.answer);
  if (wanted.text.empty()) return std::nullopt;
  const auto found = whole ? std::optional(input.completion) : FinalAnswer(input.completion);
  if (!found || Trim(*found).empty()) return 0.0;
  if (Trim(*found) == wanted.text) return 1.0;
  if (found->size() > kMaxMathText) return 0.0;
  return SameMath(ReadAnswer(*found), wanted, decimals) ? 1.0 : 0.0;
}

}  // namespace temper::reward
