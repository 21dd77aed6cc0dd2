#include "reward/extract.h"

#include <charconv>
#include <string>

namespace temper::reward {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::string_view Trim(std::string_view text) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
  return text;
}

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
    const bool term =
        i > 0 && (IsDigit(text[i - 1]) || IsLetter(text[i - 1]) || text[i - 1] == ')');
    const bool sign = text[i] == '-' && !term;
    const bool start = IsDigit(text[i]) || sign || text[i] == '.';
    const std::size_t end = start ? NumberEnd(text, i) : i;
    if (end > i) last = text.substr(i, end - i);
    i = end > i ? end : i + 1;
  }
  return last;
}

std::optional<double> AsNumber(std::string_view text) {
  text = Trim(text);
  if (!text.empty() && text.back() == '.') text.remove_suffix(1);
  if (!text.empty() && text.front() == '$') text.remove_prefix(1);
  if (!text.empty() && text.back() == '%') text.remove_suffix(1);
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  if (text.empty() || NumberEnd(text, 0) != text.size()) return std::nullopt;
  std::string plain;
  for (const char c : text) {
    if (c != ',') plain += c;
  }
  double value = 0;
  const auto [end, error] = std::from_chars(plain.data(), plain.data() + plain.size(), value);
  if (error != std::errc() || end != plain.data() + plain.size()) return std::nullopt;
  return value;
}

bool SameAnswer(std::string_view found, std::string_view answer) {
  const auto a = AsNumber(found), b = AsNumber(answer);
  if (a && b) return *a == *b;
  return Trim(found) == Trim(answer);
}

std::optional<std::string_view> LastTag(std::string_view text, std::string_view name) {
  const std::string open = "<" + std::string(name) + ">", close = "</" + std::string(name) + ">";
  const std::size_t end = text.rfind(close);
  if (end == std::string_view::npos) return std::nullopt;
  const std::size_t begin = text.substr(0, end).rfind(open);
  if (begin == std::string_view::npos) return std::nullopt;
  return text.substr(begin + open.size(), end - begin - open.size());
}

std::optional<std::string_view> LastBoxed(std::string_view text) {
  std::size_t at = std::string_view::npos, begin = 0;
  for (const std::string_view command : {"\\boxed", "\\fbox"}) {
    const std::size_t found = text.rfind(command);
    if (found == std::string_view::npos) continue;
    if (at == std::string_view::npos || found > at) {
      at = found;
      begin = found + command.size();
    }
  }
  if (at == std::string_view::npos) return std::nullopt;
  while (begin < text.size() && text[begin] == ' ') ++begin;
  if (begin >= text.size()) return std::nullopt;
  if (text[begin] != '{') {  // "\boxed 5$"
    const std::size_t end = text.find_first_of(" $\n", begin);
    return text.substr(begin, end == std::string_view::npos ? end : end - begin);
  }
  int depth = 0;
  for (std::size_t i = begin; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == '{' || text[i + 1] == '}')) {
      ++i;  // a set's brace
      continue;
    }
    if (text[i] == '{') ++depth;
    if (text[i] == '}' && --depth == 0) return text.substr(begin + 1, i - begin - 1);
  }
  return std::nullopt;
}

std::optional<std::string_view> LastHashes(std::string_view text) {
  const std::size_t at = text.rfind("####");
  if (at == std::string_view::npos) return std::nullopt;
  text.remove_prefix(at + 4);
  return text.substr(0, text.find('\n'));
}

std::optional<std::string_view> MarkedAnswer(std::string_view text) {
  auto found = LastTag(text, "answer");
  if (!found) found = LastBoxed(text);
  if (!found) found = LastHashes(text);
  return found;
}

}  // namespace temper::reward
