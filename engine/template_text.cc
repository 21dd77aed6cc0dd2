// Text as Python changes it: strip, replace, upper and lower case. And the arguments of calls.
#include <locale.h>
#include <wctype.h>

#include <algorithm>
#include <array>

#include "engine/template_calls.h"
#include "engine/unicode.h"
#include "engine/utf8.h"

namespace temper::engine::jinja {
namespace {

// Characters whose upper case is not one character, or where title and upper case differ: what C
// gives for them is not what Python gives.
constexpr std::array<std::pair<std::uint32_t, std::uint32_t>, 16> kSpecialUpper = {{
    {0xDF, 0xDF},
    {0x149, 0x149},
    {0x1C4, 0x1CC},
    {0x1F0, 0x1F3},
    {0x390, 0x390},
    {0x3B0, 0x3B0},
    {0x587, 0x587},
    {0x10D0, 0x10FF},
    {0x1E96, 0x1E9A},
    {0x1F50, 0x1F57},
    {0x1F80, 0x1FAF},
    {0x1FB2, 0x1FC7},
    {0x1FD2, 0x1FD7},
    {0x1FE2, 0x1FE7},
    {0x1FF2, 0x1FF7},
    {0xFB00, 0xFB17},
}};

bool Special(std::uint32_t c, bool upper) {
  if (!upper) return c == 0x130 || c == 0x3A3;  // a dot is left over; sigma at a word's end
  return std::any_of(kSpecialUpper.begin(), kSpecialUpper.end(),
                     [c](const auto& range) { return c >= range.first && c <= range.second; });
}

std::uint32_t Cased(std::uint32_t c, bool upper) {
  if (c < 0x80) {
    const bool change = upper ? c >= 'a' && c <= 'z' : c >= 'A' && c <= 'Z';
    return change ? c ^ 0x20u : c;
  }
  static const locale_t unicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  if (!unicode || Special(c, upper)) {
    std::string text;
    AppendUtf8(c, &text);
    throw Failure("upper and lower case of " + configs::Quote(text) + " are not supported");
  }
  return upper ? towupper_l(c, unicode) : towlower_l(c, unicode);
}

std::string AllCased(std::string_view text, bool upper) {
  std::string out;
  while (!text.empty()) {
    int length = 0;
    AppendUtf8(Cased(DecodeUtf8(text, &length), upper), &out);
    text.remove_prefix(static_cast<std::size_t>(length));
  }
  return out;
}

std::size_t FirstLength(std::string_view text) {
  return static_cast<std::size_t>(std::max(Utf8Length(text.substr(0, 4)), 1));
}

}  // namespace

std::string Upper(std::string_view text) { return AllCased(text, true); }
std::string Lower(std::string_view text) { return AllCased(text, false); }

std::string Capitalized(std::string_view text) {
  if (text.empty()) return "";
  const std::size_t first = FirstLength(text);
  return Upper(text.substr(0, first)) + Lower(text.substr(first));
}

// Jinja's own filter: a word begins behind white space and opening brackets.
std::string Titled(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    std::size_t end = 0;
    const auto breaks = [&](std::size_t at) {
      int length = 0;
      const std::uint32_t c = DecodeUtf8(text.substr(at), &length);
      return IsPythonSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    };
    const bool gap = breaks(0);
    while (end < text.size() && breaks(end) == gap) end += FirstLength(text.substr(end));
    out += gap ? std::string(text.substr(0, end)) : Capitalized(text.substr(0, end));
    text.remove_prefix(end);
  }
  return out;
}

std::string_view Strip(std::string_view text, const Value* chars, bool left, bool right) {
  const bool space = !chars || chars->IsNone();
  const std::string_view set =
      space ? std::string_view() : TextOf(*chars, "the characters to strip");
  const auto goes = [&](std::string_view character) {
    int length = 0;
    if (space) return IsPythonSpace(DecodeUtf8(character, &length));
    return set.find(character) != set.npos;  // UTF-8 finds whole characters only
  };
  while (left && !text.empty() && goes(text.substr(0, FirstLength(text)))) {
    text.remove_prefix(FirstLength(text));
  }
  while (right && !text.empty()) {
    std::size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    if (!goes(text.substr(start))) break;
    text = text.substr(0, start);
  }
  return text;
}

std::string Replaced(std::string_view text, std::string_view from, std::string_view to,
                     std::int64_t count) {
  std::string out;
  if (from.empty()) {  // between all characters
    const auto starts = CharacterStarts(text);
    for (std::size_t i = 0; i < starts.size(); ++i) {
      if (count < 0 || static_cast<std::int64_t>(i) < count) out += to;
      if (i + 1 < starts.size()) out += text.substr(starts[i], starts[i + 1] - starts[i]);
      if (out.size() > std::size_t{16} << 20) throw Failure("a text too long");
    }
    return out;
  }
  for (; count != 0; --count) {
    const std::size_t at = text.find(from);
    if (at == text.npos) break;
    out += text.substr(0, at);
    out += to;
    if (out.size() > std::size_t{16} << 20) throw Failure("a text too long");
    text.remove_prefix(at + from.size());
  }
  return out.append(text);
}

std::int64_t IntegerOf(const Value& value, const char* what) {
  if (!value.IsIntegral())
    throw Failure(std::string(what) + " must be an integer, not " + value.TypeName());
  return value.integer();
}

const std::string& TextOf(const Value& value, const char* what) {
  if (!value.IsText()) {
    throw Failure(std::string(what) + " must be a text, not " + value.TypeName() +
                  (value.IsUndefined() && !value.missing().empty() ? ": " + value.missing() : ""));
  }
  return value.text();
}

const Value* Arguments::Take(std::size_t index, const char* name) {
  taken_ = std::max(taken_, index + 1);
  known_.push_back(name);
  if (index < positional.size()) return &positional[index];
  for (const auto& [given, value] : named) {
    if (given == name) return &value;
  }
  return nullptr;
}

void Arguments::Done(const std::string& what) const {
  if (positional.size() > taken_) {
    throw Failure(what + ": " + std::to_string(positional.size()) + " arguments, at most " +
                  std::to_string(taken_) + " are supported");
  }
  for (const auto& [name, value] : named) {
    if (std::find(known_.begin(), known_.end(), name) == known_.end()) {
      throw Failure(what + ": the argument " + configs::Quote(name) + " is not supported");
    }
  }
}

}  // namespace temper::engine::jinja
