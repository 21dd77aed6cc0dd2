#include "reward/rules.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>

namespace temper::reward {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool IsWord(char c) { return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::string_view Trim(std::string_view text) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
  return text;
}

/// The end of the number at `begin`: digits, commas between digits, one fraction. `begin` if there
/// is none.
std::size_t NumberEnd(std::string_view text, std::size_t begin) {
  std::size_t i = begin;
  if (i < text.size() && text[i] == '-') ++i;
  const std::size_t digits = i;
  while (i < text.size() && (IsDigit(text[i]) || (text[i] == ',' && i > digits &&
                                                  i + 1 < text.size() && IsDigit(text[i + 1])))) {
    ++i;
  }
  const bool whole = i > digits;
  if (i + 1 < text.size() && text[i] == '.' && IsDigit(text[i + 1])) {
    ++i;
    while (i < text.size() && IsDigit(text[i])) ++i;
    return i;
  }
  return whole ? i : begin;
}

std::optional<std::string_view> LastNumber(std::string_view text) {
  std::optional<std::string_view> last;
  for (std::size_t i = 0; i < text.size();) {
    // A minus between two terms is an operator, not a sign.
    const bool sign = text[i] == '-' && (i == 0 || !(IsWord(text[i - 1]) || text[i - 1] == ')'));
    const bool start = IsDigit(text[i]) || sign || text[i] == '.';
    const std::size_t end = start ? NumberEnd(text, i) : i;
    if (end > i) last = text.substr(i, end - i);
    i = end > i ? end : i + 1;
  }
  return last;
}

/// The value of a text that is one number, with commas, a currency or percent sign and a full stop
/// allowed.
std::optional<double> AsNumber(std::string_view text) {
  text = Trim(text);
  if (!text.empty() && text.back() == '.') text.remove_suffix(1);
  if (!text.empty() && text.front() == '$') text.remove_prefix(1);
  if (!text.empty() && text.back() == '%') text.remove_suffix(1);
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  if (text.empty() || NumberEnd(text, 0) != text.size()) return std::nullopt;
  std::string plain;
  for (char c : text) {
    if (c != ',') plain += c;
  }
  return std::strtod(plain.c_str(), nullptr);
}

bool Same(std::string_view found, std::string_view answer) {
  const auto a = AsNumber(found), b = AsNumber(answer);
  if (a && b) return *a == *b;
  return Trim(found) == Trim(answer);
}

std::optional<std::string_view> LastTag(std::string_view text) {
  constexpr std::string_view kOpen = "<answer>", kClose = "</answer>";
  const std::size_t close = text.rfind(kClose);
  if (close == std::string_view::npos) return std::nullopt;
  const std::size_t open = text.substr(0, close).rfind(kOpen);
  if (open == std::string_view::npos) return std::nullopt;
  return text.substr(open + kOpen.size(), close - open - kOpen.size());
}

std::optional<std::string_view> LastBoxed(std::string_view text) {
  constexpr std::string_view kOpen = "\\boxed{";
  const std::size_t open = text.rfind(kOpen);
  if (open == std::string_view::npos) return std::nullopt;
  const std::size_t begin = open + kOpen.size();
  int depth = 1;
  for (std::size_t i = begin; i < text.size(); ++i) {
    if (text[i] == '{') ++depth;
    if (text[i] == '}' && --depth == 0) return text.substr(begin, i - begin);
  }
  return std::nullopt;
}

std::optional<std::string_view> LastHashes(std::string_view text) {
  const std::size_t at = text.rfind("####");
  if (at == std::string_view::npos) return std::nullopt;
  text.remove_prefix(at + 4);
  return text.substr(0, text.find('\n'));
}

std::optional<double> Exact(std::string_view completion, std::string_view answer) {
  return Trim(completion) == Trim(answer) ? 1.0 : 0.0;
}

std::optional<double> LastNumberRule(std::string_view completion, std::string_view answer) {
  const auto wanted = AsNumber(answer);
  if (!wanted) return std::nullopt;
  const auto found = LastNumber(completion);
  return found && AsNumber(*found) == wanted ? 1.0 : 0.0;
}

std::optional<double> Boxed(std::string_view completion, std::string_view answer) {
  const auto found = LastBoxed(completion);
  return found && Same(*found, answer) ? 1.0 : 0.0;
}

std::optional<double> Accuracy(std::string_view completion, std::string_view answer) {
  auto found = LastTag(completion);
  if (!found) found = LastBoxed(completion);
  if (!found) found = LastHashes(completion);
  if (!found) found = LastNumber(completion);
  return found && Same(*found, answer) ? 1.0 : 0.0;
}

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

std::optional<double> LcsRatio(std::string_view completion, std::string_view answer) {
  const std::size_t both = completion.size() + answer.size();
  if (both == 0) return 1.0;
  return 2.0 * static_cast<double>(LcsLength(completion, answer)) / static_cast<double>(both);
}

}  // namespace

const std::vector<Rule>& Rules() {
  static const std::vector<Rule> kRules = {{"accuracy", Accuracy},
                                           {"boxed", Boxed},
                                           {"exact", Exact},
                                           {"last_number", LastNumberRule},
                                           {"lcs_ratio", LcsRatio}};
  return kRules;
}

const Rule* FindRule(std::string_view name) {
  for (const Rule& rule : Rules()) {
    if (name == rule.name) return &rule;
  }
  return nullptr;
}

}  // namespace temper::reward
