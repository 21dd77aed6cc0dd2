#include "engine/template_lexer.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "configs/json.h"
#include "engine/unicode.h"
#include "engine/utf8.h"

namespace temper::engine::jinja {
namespace {

using Kind = Token::Kind;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_'; }

// Every line end becomes a line feed; the last one goes.
std::string Normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out += '\n';
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

std::size_t SpaceBytes(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    int length = 0;
    if (!IsPythonSpace(DecodeUtf8(text.substr(at), &length))) break;
    at += static_cast<std::size_t>(length);
  }
  return at;
}

std::string_view StripRight(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    std::size_t start = end - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    int length = 0;
    if (!IsPythonSpace(DecodeUtf8(text.substr(start), &length))) break;
    end = start;
  }
  return text.substr(0, end);
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(Normalized(source)), text_(source_) {}

  std::vector<Token> Run() {
    while (at_ < text_.size()) {
      std::size_t open = at_;
      while ((open = text_.find('{', open)) != text_.npos &&
             (open + 1 >= text_.size() ||
              std::string_view("{%#").find(text_[open + 1]) == std::string_view::npos)) {
        ++open;
      }
      const bool found = open != text_.npos;
      const std::string_view before = text_.substr(at_, found ? open - at_ : text_.npos);
      if (!found) {
        AddText(before);
        Move(text_.size());
        break;
      }
      const char kind = text_[open + 1];
      const char sign = Peek(open + 2);
      AddText(Controlled(before, kind, sign));
      Move(open);
      if (kind == '#') {
        Comment();
      } else if (kind == '{') {
        Tag(Kind::kOpenOutput, sign);
      } else if (!Raw(sign)) {
        Tag(Kind::kOpenBlock, sign);
      }
    }
    Add(Kind::kEnd);
    return std::move(tokens_);
  }

 private:
  char Peek(std::size_t at) const { return at < text_.size() ? text_[at] : '\0'; }
  std::string_view Rest() const { return text_.substr(at_); }
  [[noreturn]] void Fail(const std::string& what) const { throw SyntaxError(line_, what); }

  void Move(std::size_t to) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         text_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    at_ = to;
  }
  Token& Add(Kind kind, std::string text = {}) {
    Token& token = tokens_.emplace_back();
    token.kind = kind;
    token.line = line_;
    token.text = std::move(text);
    return token;
  }
  void AddText(std::string_view text) {
    if (!text.empty()) Add(Kind::kText, std::string(text));
  }

  // The text before a tag, less what the tag strips.
  std::string_view Controlled(std::string_view before, char kind, char sign) const {
    if (sign == '-') return StripRight(before);
    if (sign == '+' || kind == '{') return before;
    const std::size_t feed = before.rfind('\n');
    const std::size_t start = feed == before.npos ? 0 : feed + 1;
    if (start == 0 && !line_starting_) return before;
    const std::string_view last = before.substr(start);
    return SpaceBytes(last) == last.size() ? before.substr(0, start) : before;
  }

  // Length of a tag's end ("-%}" and the like with what it swallows) at `at`; 0: there is none.
  std::size_t CloseAt(std::size_t at, char mark, bool may_keep) const {
    const char sign = Peek(at);
    std::size_t end = at + (sign == '-' || (sign == '+' && may_keep) ? 1 : 0);
    if (Peek(end) != mark || Peek(end + 1) != '}') return 0;
    end += 2;
    if (sign == '-') {
      end += SpaceBytes(text_.substr(end));
    } else if (sign != '+' && mark != '}' && Peek(end) == '\n') {
      ++end;
    }
    return end - at;
  }

  void Close(std::size_t length) {
    Move(at_ + length);
    line_starting_ = text_[at_ - 1] == '\n';
  }

  void Comment() {
    std::size_t at = at_ + 2;
    if (Peek(at) == '-' || Peek(at) == '+') ++at;
    for (; at < text_.size(); ++at) {
      const std::size_t length = CloseAt(at, '#', true);
      if (length == 0) continue;
      Move(at);
      return Close(length);
    }
    Fail("a comment without end");
  }

  std::size_t SkipSpace(std::size_t at) const {
    return at + SpaceBytes(text_.substr(std::min(at, text_.size())));
  }

  // {% raw %} ... {% endraw %}: the text between is text.
  bool Raw(char sign) {
    std::size_t at = SkipSpace(at_ + 2 + (sign == '-' || sign == '+'));
    if (text_.substr(at, 3) != "raw") return false;
    at = SkipSpace(at + 3);
    if (text_.substr(at, 2) == "%}") {
      at += 2;
    } else if (text_.substr(at, 3) == "-%}") {
      at = SkipSpace(at + 3);
    } else {
      return false;
    }
    for (std::size_t open = text_.find("{%", at); open != text_.npos;
         open = text_.find("{%", open + 1)) {
      const char end_sign = Peek(open + 2);
      std::size_t end = SkipSpace(open + 2 + (end_sign == '-' || end_sign == '+'));
      if (text_.substr(end, 6) != "endraw") continue;
      end = SkipSpace(end + 6);
      const std::size_t length = CloseAt(end, '%', true);
      if (length == 0) continue;
      line_starting_ = text_[at - 1] == '\n';
      const std::string_view inside = text_.substr(at, open - at);
      Move(at);
      AddText(Controlled(inside, '%', end_sign));
      Move(end);
      Close(length);
      return true;
    }
    Fail("a raw block without end");
  }

  void Tag(Kind kind, char sign) {
    const char mark = kind == Kind::kOpenOutput ? '}' : '%';
    Add(kind);
    Move(at_ + 2 + (sign == '-' || sign == '+'));
    braces_.clear();
    while (true) {
      if (at_ >= text_.size()) Fail("a tag without end");
      const std::size_t length = braces_.empty() ? CloseAt(at_, mark, mark == '%') : 0;
      if (length > 0) {
        Add(kind == Kind::kOpenOutput ? Kind::kCloseOutput : Kind::kCloseBlock);
        return Close(length);
      }
      const std::size_t space = SpaceBytes(Rest());
      if (space > 0) {
        Move(at_ + space);
      } else {
        Piece();
      }
    }
  }

  void Piece() {
    const char c = text_[at_];
    if (IsDigit(c)) return Number();
    if (IsNameStart(c)) {
      std::size_t end = at_;
      while (IsNameStart(Peek(end)) || IsDigit(Peek(end))) ++end;
      if (static_cast<unsigned char>(Peek(end)) >= 0x80) Fail("a name with a non-ASCII character");
      Add(Kind::kName, std::string(text_.substr(at_, end - at_)));
      return Move(end);
    }
    if (c == '"' || c == '\'') return String(c);
    for (const std::string_view op :
         {"//", "**", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "[",
          "]",  "(",  ")",  "{",  "}",  "<",  ">", "=", ".", ":", "|", ","}) {
      if (Rest().substr(0, op.size()) == op) return Operator(op);
    }
    int length = 0;
    DecodeUtf8(Rest(), &length);
    Fail("unexpected " + configs::Quote(Rest().substr(0, static_cast<std::size_t>(length))));
  }

  void Operator(std::string_view op) {
    if (op == "(" || op == "[" || op == "{") {
      braces_ += op == "(" ? ')' : op == "[" ? ']' : '}';
      if (braces_.size() > 200) Fail("brackets nested too deeply");
    } else if (op == ")" || op == "]" || op == "}") {
      if (braces_.empty() || braces_.back() != op[0])
        Fail("unexpected \"" + std::string(op) + "\"");
      braces_.pop_back();
    }
    Add(Kind::kOperator, std::string(op));
    Move(at_ + op.size());
  }

  std::size_t Digits(std::size_t at) const {
    while (IsDigit(Peek(at)) || (Peek(at) == '_' && IsDigit(Peek(at + 1)))) ++at;
    return at;
  }

  void Number() {
    if (text_[at_] == '0' && (IsNameStart(Peek(at_ + 1)) || IsDigit(Peek(at_ + 1)))) {
      Fail("a number that begins with 0 is not supported");
    }
    std::size_t end = Digits(at_);
    bool whole = true;
    // "a.0.1" is two subscripts, not a fraction.
    const bool subscript = at_ > 0 && text_[at_ - 1] == '.';
    if (!subscript && Peek(end) == '.' && IsDigit(Peek(end + 1))) {
      end = Digits(end + 1);
      whole = false;
    }
    if (!subscript && (Peek(end) == 'e' || Peek(end) == 'E')) {
      const std::size_t sign = Peek(end + 1) == '-' || Peek(end + 1) == '+';
      if (IsDigit(Peek(end + 1 + sign))) {
        end = Digits(end + 1 + sign);
        whole = false;
      }
    }
    std::string digits(text_.substr(at_, end - at_));
    digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
    Token& token = Add(whole ? Kind::kInteger : Kind::kFloat, digits);
    const char* last = digits.data() + digits.size();
    const auto result = whole ? std::from_chars(digits.data(), last, token.integer)
                              : std::from_chars(digits.data(), last, token.number);
    if (result.ec != std::errc() || result.ptr != last) {
      Fail("the number " + configs::Quote(digits) + " is too large");
    }
    Move(end);
  }

  void String(char quote) {
    std::size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) Fail("a string without end");
    Add(Kind::kString, Unescaped(text_.substr(at_ + 1, end - at_ - 1)));
    Move(end + 1);
  }

  // Python's escapes, as its codec "unicode-escape" reads them.
  std::string Unescaped(std::string_view text) const {
    constexpr std::string_view kFrom = "\\'\"abfnrtv", kTo = "\\'\"\a\b\f\n\r\t\v";
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\') {
        out += text[i];
        continue;
      }
      const char c = text[++i];  // a string's end is no backslash
      const std::size_t simple = kFrom.find(c);
      if (simple != kFrom.npos) {
        out += kTo[simple];
      } else if (c == 'x' || c == 'u' || c == 'U') {
        i += Hexadecimal(text.substr(i + 1), c == 'x' ? 2 : c == 'u' ? 4 : 8, &out);
      } else if (c == '\n') {
        continue;
      } else if (c == 'N' || (c >= '0' && c <= '7') || static_cast<unsigned char>(c) >= 0x80) {
        Fail("this escape in a string is not supported: a backslash and " +
             configs::Quote(text.substr(
                 i, static_cast<std::size_t>(std::max(1, Utf8Length(text.substr(i, 4)))))));
      } else {
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  std::size_t Hexadecimal(std::string_view text, std::size_t digits, std::string* out) const {
    std::uint32_t c = 0;
    const char* last = text.data() + std::min(digits, text.size());
    const auto result = std::from_chars(text.data(), last, c, 16);
    if (text.size() < digits || result.ptr != last || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) {
      Fail("a broken escape in a string");
    }
    AppendUtf8(c, out);
    return digits;
  }

  const std::string source_;
  const std::string_view text_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the last tag ended a line
  std::string braces_;         // what closes the open ones
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> Tokenize(std::string_view source) {
  const std::size_t bad = FindInvalidUtf8(source);
  if (bad != source.npos) {
    throw SyntaxError(
        1 + static_cast<int>(std::count(source.begin(),
                                        source.begin() + static_cast<std::ptrdiff_t>(bad), '\n')),
        "byte " + std::to_string(bad) + " is not valid UTF-8");
  }
  return Lexer(source).Run();
}

}  // namespace temper::engine::jinja
