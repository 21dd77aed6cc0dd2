#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>
#include <string>
#include <vector>

#include "reward/extract.h"
#include "reward/rule_functions.h"

namespace temper::reward {
namespace {

/// Tokens of the completion: the option `length`, else the ids.
std::int64_t Length(const RuleInput& input) {
  const auto ids = static_cast<std::int64_t>(input.ids.size());
  const std::int64_t length = IntegerOption(input, "length", ids, 0, INT32_MAX);
  if (length == 0 && ids == 0 && !input.completion.empty()) {
    throw std::invalid_argument("the number of tokens is not known; give the sample or `length`");
  }
  return length;
}

/// The share of n-grams that were there before.
template <typename T>
double RepeatedShare(const std::vector<T>& items, std::size_t n) {
  if (items.size() < n) return 0;
  std::vector<std::size_t> grams(items.size() - n + 1);
  for (std::size_t i = 0; i < grams.size(); ++i) grams[i] = i;
  const auto at = [&](std::size_t i) { return items.begin() + static_cast<std::ptrdiff_t>(i); };
  const auto length = static_cast<std::ptrdiff_t>(n);
  std::sort(grams.begin(), grams.end(), [&](std::size_t a, std::size_t b) {
    return std::lexicographical_compare(at(a), at(a) + length, at(b), at(b) + length);
  });
  std::size_t unique = 1;
  for (std::size_t i = 1; i < grams.size(); ++i) {
    unique += !std::equal(at(grams[i]), at(grams[i]) + length, at(grams[i - 1]));
  }
  return 1.0 - static_cast<double>(unique) / static_cast<double>(grams.size());
}

std::vector<std::string> Words(std::string_view text) {
  std::vector<std::string> words;
  for (std::size_t i = 0; i < text.size();) {
    while (i < text.size() && IsSpace(text[i])) ++i;
    const std::size_t begin = i;
    while (i < text.size() && !IsSpace(text[i])) ++i;
    if (i == begin) break;
    std::string word(text.substr(begin, i - begin));
    for (char& c : word) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    words.push_back(std::move(word));
  }
  return words;
}

/// The next code point of UTF-8 text; 0 for bytes that are none.
std::uint32_t NextCode(std::string_view text, std::size_t* i) {
  const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  const unsigned first = byte((*i)++);
  if (first < 0x80) return first;
  const int more = first >= 0xF0 && first < 0xF8 ? 3 : first >= 0xE0 ? 2 : first >= 0xC2 ? 1 : 0;
  if (more == 0 || first >= 0xF8 || *i + static_cast<std::size_t>(more) > text.size()) return 0;
  std::uint32_t code = first & (0x3Fu >> more);
  for (int k = 0; k < more; ++k) {
    const unsigned next = byte(*i + static_cast<std::size_t>(k));
    if ((next & 0xC0) != 0x80) return 0;
    code = code << 6 | (next & 0x3F);
  }
  *i += static_cast<std::size_t>(more);
  return code;
}

enum class Script {
  kNone,
  kLatin,
  kHan,
  kKana,
  kHangul,
  kCyrillic,
  kGreek,
  kArabic,
  kHebrew,
  kDevanagari,
  kThai
};

Script ScriptOf(std::uint32_t c) {
  struct Range {
    std::uint32_t first, last;
    Script script;
  };
  constexpr Range kRanges[] = {
      {'A', 'Z', Script::kLatin},        {'a', 'z', Script::kLatin},
      {0xC0, 0x24F, Script::kLatin},     {0x370, 0x3FF, Script::kGreek},
      {0x400, 0x52F, Script::kCyrillic}, {0x590, 0x5FF, Script::kHebrew},
      {0x600, 0x6FF, Script::kArabic},   {0x900, 0x97F, Script::kDevanagari},
      {0xE00, 0xE7F, Script::kThai},     {0x1E00, 0x1EFF, Script::kLatin},
      {0x3040, 0x30FF, Script::kKana},   {0x3400, 0x4DBF, Script::kHan},
      {0x4E00, 0x9FFF, Script::kHan},    {0xAC00, 0xD7A3, Script::kHangul},
      {0xF900, 0xFAFF, Script::kHan},    {0x20000, 0x3134F, Script::kHan}};
  if (c == 0xD7 || c == 0xF7) return Script::kNone;  // the signs of times and division
  for (const Range& range : kRanges) {
    if (c >= range.first && c <= range.last) return range.script;
  }
  return Script::kNone;
}

std::vector<Script> ScriptsOf(const std::string& language) {
  if (language == "zh") return {Script::kHan};
  if (language == "ja") return {Script::kKana, Script::kHan};
  if (language == "ko") return {Script::kHangul};
  if (language == "ru" || language == "uk") return {Script::kCyrillic};
  if (language == "el") return {Script::kGreek};
  if (language == "ar") return {Script::kArabic};
  if (language == "he") return {Script::kHebrew};
  if (language == "hi") return {Script::kDevanagari};
  if (language == "th") return {Script::kThai};
  for (const char* latin : {"en", "de", "fr", "es", "it", "pt", "nl", "pl", "vi", "tr"}) {
    if (language == latin) return {Script::kLatin};
  }
  throw std::invalid_argument(
      "option language: must be one of en, de, fr, es, it, pt, nl, pl, vi, tr (Latin letters), zh, "
      "ja, ko, ru, uk, el, ar, he, hi, th");
}

/// Characters of these are words by themselves.
bool IsIdeographic(Script script) {
  return script == Script::kHan || script == Script::kKana || script == Script::kThai;
}

}  // namespace

std::optional<double> Language(const RuleInput& input) {
  const std::vector<Script> wanted = ScriptsOf(TextOption(input, "language", "en"));
  const double least = NumberOption(input, "min", -1, 0, 1);
  std::int64_t words = 0, right = 0;
  Script before = Script::kNone;
  for (std::size_t i = 0; i < input.completion.size();) {
    const Script script = ScriptOf(NextCode(input.completion, &i));
    const bool begins = script != Script::kNone && (script != before || IsIdeographic(script));
    before = script;
    if (!begins) continue;
    ++words;
    right += std::find(wanted.begin(), wanted.end(), script) != wanted.end();
  }
  if (words == 0) return std::nullopt;
  const double share = static_cast<double>(right) / static_cast<double>(words);
  return least < 0 ? share : share >= least ? 1.0 : 0.0;
}

std::optional<double> RepetitionPenalty(const RuleInput& input) {
  const auto n = static_cast<std::size_t>(IntegerOption(input, "ngram_size", 3, 1, 1000));
  const double most = NumberOption(input, "max_penalty", -1.0, -1e6, 0);
  const double share =
      input.ids.empty()
          ? RepeatedShare(Words(input.completion), n)
          : RepeatedShare(std::vector<std::int32_t>(input.ids.begin(), input.ids.end()), n);
  return share == 0 ? 0.0 : share * most;
}

std::optional<double> SoftOverlong(const RuleInput& input) {
  const std::int64_t most = IntegerOption(input, "max_length", std::nullopt, 1, INT32_MAX);
  const std::int64_t buffer = IntegerOption(input, "buffer", std::nullopt, 0, most);
  const std::int64_t length = Length(input);
  if (length <= most - buffer) return 0.0;
  if (length > most) return -1.0;
  return static_cast<double>(most - buffer - length) / static_cast<double>(buffer);
}

std::optional<double> CosineScaled(const RuleInput& input) {
  const std::int64_t most = IntegerOption(input, "max_length", std::nullopt, 1, INT32_MAX);
  const double min_wrong = NumberOption(input, "min_wrong", -1.0, -1e6, 1e6);
  const double max_wrong = NumberOption(input, "max_wrong", -0.5, -1e6, 1e6);
  const double min_correct = NumberOption(input, "min_correct", 0.5, -1e6, 1e6);
  const double max_correct = NumberOption(input, "max_correct", 1.0, -1e6, 1e6);
  const double length = static_cast<double>(std::min(Length(input), most));
  bool correct = FlagOption(input, "correct", false);
  if (input.options == nullptr || !input.options->contains("correct")) {
    RuleInput plain = input;
    plain.options = nullptr;
    correct = Accuracy(plain) == 1.0;
  }
  // A short right answer is worth most, a long wrong one costs least.
  const double from = correct ? max_correct : min_wrong, to = correct ? min_correct : max_wrong;
  const double cosine = std::cos(length / static_cast<double>(most) * std::numbers::pi);
  return to + 0.5 * (from - to) * (1.0 + cosine);
}

}  // namespace temper::reward
