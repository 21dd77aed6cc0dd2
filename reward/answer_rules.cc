#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "reward/extract.h"
#include "reward/rule_functions.h"

namespace temper::reward {
namespace {

/// Hyyro's bit-parallel length of the longest common subsequence: |a| * |b| / 64 word steps.
std::size_t LcsLength(std::string_view a, std::string_view b) {
  const std::size_t words = (a.size() + 63) / 64;
  // One row of bits a byte value that `a` has.
  std::array<std::vector<std::uint64_t>, 256> match;
  for (std::size_t i = 0; i < a.size(); ++i) {
    auto& row = match[static_cast<unsigned char>(a[i])];
    if (row.empty()) row.resize(words);
    row[i / 64] |= std::uint64_t{1} << (i % 64);
  }
  std::vector<std::uint64_t> v(words, ~std::uint64_t{0});
  for (char c : b) {
    const auto& row = match[static_cast<unsigned char>(c)];
    if (row.empty()) continue;
    std::uint64_t carry = 0;
    for (std::size_t w = 0; w < words; ++w) {
      const std::uint64_t x = v[w] & row[w];
      const std::uint64_t partial = v[w] + x;
      const std::uint64_t sum = partial + carry;
      carry = (partial < v[w]) | (sum < partial);
      v[w] = sum | (v[w] & ~row[w]);
    }
  }
  std::size_t zeros = 0;
  for (std::size_t i = 0; i < a.size(); ++i) zeros += (v[i / 64] >> (i % 64) & 1) == 0;
  return zeros;
}

/// The letter of "B", "(B)", "**B.**", "\\text{B}", "B: Paris"; 0 if it is none of `choices`.
char LeadingLetter(std::string_view text, std::string_view choices) {
  constexpr std::string_view kText = "\\text{";
  while (!text.empty()) {
    if (text.compare(0, kText.size(), kText) == 0) {
      text.remove_prefix(kText.size());
    } else if (IsSpace(text[0]) || std::string_view("(*$:[{\"'").find(text[0]) != text.npos) {
      text.remove_prefix(1);
    } else {
      break;
    }
  }
  if (text.empty() || choices.find(text[0]) == std::string_view::npos) return 0;
  if (text.size() > 1 && (IsLetter(text[1]) || IsDigit(text[1]) || text[1] == '\'')) return 0;
  return text[0];
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

/// The choice after the last "answer" that one follows ("the answer is (B)", "Answer: B").
char LetterAfterAnswer(std::string_view text, std::string_view choices) {
  const std::string lower = Lower(text);
  for (std::size_t at = lower.rfind("answer"); at != std::string::npos;
       at = at == 0 ? std::string::npos : lower.rfind("answer", at - 1)) {
    std::string_view rest = text.substr(at + 6);
    std::string_view lower_rest = std::string_view(lower).substr(at + 6);
    for (const std::string_view word : {" is", ":", " would be", " choice"}) {
      if (lower_rest.compare(0, word.size(), word) != 0) continue;
      rest.remove_prefix(word.size());
      lower_rest.remove_prefix(word.size());
    }
    if (const char letter = LeadingLetter(rest, choices)) return letter;
  }
  return 0;
}

/// The last capital that stands alone and is no pronoun or article of a sentence.
char LastLoneLetter(std::string_view text, std::string_view choices) {
  for (std::size_t i = text.size(); i-- > 0;) {
    if (choices.find(text[i]) == std::string_view::npos) continue;
    const bool begins = i == 0 || std::string_view("(*\n[$ {").find(text[i - 1]) != text.npos;
    const bool ends =
        i + 1 == text.size() || std::string_view(").*\n]:$}").find(text[i + 1]) != text.npos;
    if (begins && ends) return text[i];
  }
  return 0;
}

char ChosenLetter(std::string_view completion, std::string_view choices) {
  if (const auto marked = MarkedAnswer(completion)) return LeadingLetter(*marked, choices);
  if (const char letter = LeadingLetter(completion, choices)) {
    if (Trim(completion).size() <= 4 || completion.find_first_of(".):") < 5) return letter;
  }
  if (const char letter = LetterAfterAnswer(completion, choices)) return letter;
  return LastLoneLetter(completion, choices);
}

/// GSM8K's own column is a whole solution that ends with "#### 42".
std::string_view Gold(std::string_view answer) {
  const auto hashes = LastHashes(answer);
  return hashes ? *hashes : answer;
}

}  // namespace

std::optional<double> LcsRatio(const RuleInput& input) {
  const std::size_t both = input.completion.size() + input.answer->size();
  if (both == 0) return 1.0;
  return 2.0 * static_cast<double>(LcsLength(input.completion, *input.answer)) /
         static_cast<double>(both);
}

std::optional<double> Exact(const RuleInput& input) {
  const std::string_view found = Trim(input.completion), answer = Trim(*input.answer);
  if (FlagOption(input, "ignore_case", false)) return Lower(found) == Lower(answer) ? 1.0 : 0.0;
  return found == answer ? 1.0 : 0.0;
}

std::optional<double> LastNumberRule(const RuleInput& input) {
  const auto wanted = AsNumber(*input.answer);
  if (!wanted) return std::nullopt;
  const auto found = LastNumber(input.completion);
  return found && AsNumber(*found) == wanted ? 1.0 : 0.0;
}

std::optional<double> Boxed(const RuleInput& input) {
  const auto found = LastBoxed(input.completion);
  return found && SameAnswer(*found, *input.answer) ? 1.0 : 0.0;
}

std::optional<double> Accuracy(const RuleInput& input) {
  auto found = MarkedAnswer(input.completion);
  if (!found) found = LastNumber(input.completion);
  return found && SameAnswer(*found, *input.answer) ? 1.0 : 0.0;
}

std::optional<double> Gsm8k(const RuleInput& input) {
  const std::string method = TextOption(input, "method", "strict");
  if (method != "strict" && method != "flexible") {
    throw std::invalid_argument("option method: must be \"strict\" or \"flexible\"");
  }
  const auto wanted = AsNumber(Gold(*input.answer));
  if (!wanted) return std::nullopt;
  auto found = LastHashes(input.completion);
  if (method == "flexible" && (!found || !AsNumber(*found))) found = LastNumber(input.completion);
  return found && AsNumber(*found) == wanted ? 1.0 : 0.0;
}

std::optional<double> MultipleChoice(const RuleInput& input) {
  const std::string choices = TextOption(input, "choices", "ABCDEFGHIJ");
  if (choices.empty()) throw std::invalid_argument("option choices: must name letters");
  const std::string_view answer = Trim(*input.answer);
  if (answer.empty()) return std::nullopt;
  char wanted = LeadingLetter(answer, choices);
  if (answer.size() == 1 && IsDigit(answer[0])) {  // an index, as MMLU's rows have
    const auto index = static_cast<std::size_t>(answer[0] - '0');
    wanted = index < choices.size() ? choices[index] : '\0';
  }
  if (wanted == 0) return std::nullopt;
  return ChosenLetter(input.completion, choices) == wanted ? 1.0 : 0.0;
}

}  // namespace temper::reward
