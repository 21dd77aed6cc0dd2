#include "reward/math_tokens.h"

#include <array>

#include "reward/extract.h"

namespace temper::reward {
namespace {

using Kind = MathToken::Kind;

struct Pair {
  std::string_view from, to;
};

// Signs of Unicode as the command or sign they mean.
constexpr Pair kUnicode[] = {{"\u00d7", "\\times "},
                             {"\u00f7", "\\div "},
                             {"\u2212", "-"},
                             {"\u2013", "-"},
                             {"\u221a", "\\sqrt "},
                             {"\u03c0", "\\pi "},
                             {"\u221e", "\\infty "},
                             {"\u2264", "<="},
                             {"\u2265", ">="},
                             {"\u2260", "!="},
                             {"\u00b0", " "},
                             {"\u222a", "\\cup "},
                             {"\u2208", "\\in "},
                             {"\u00b1", "\\pm "},
                             {"\u00b7", "\\cdot "},
                             {"\u2205", "\\emptyset "},
                             {"\u00b2", "^2 "},
                             {"\u00b3", "^3 "},
                             {"\u00bd", "\\frac{1}{2}"},
                             {"\u00a0", " "},
                             {"\u2009", " "},
                             {"\u20ac", ""},
                             {"\u00a3", ""},
                             {"\u00a5", ""},
                             {"\u03b8", "\\theta "},
                             {"\u03b1", "\\alpha "}};

constexpr std::string_view kLooks[] = {
    "left",   "right",  "displaystyle", "textstyle", "big",   "Big",     "bigg",   "Bigg",
    "bigl",   "bigr",   "Bigl",         "Bigr",      "quad",  "qquad",   "limits", "nolimits",
    "degree", "circ",   "mathstrut",    "phantom",   "hfill", "newline", "rm",     "bf",
    "it",     "dollar", "middle",       "hline",     "ldots", "dots",    "cdots"};

constexpr std::string_view kTextCommands[] = {
    "text",   "textbf",       "textit",  "mathrm", "mathbf",     "mbox",
    "textrm", "operatorname", "mathit",  "emph",   "textnormal", "mathsf",
    "texttt", "boldsymbol",   "mathcal", "bm",     "hbox"};

// Names that stay words where letters stand together.
constexpr std::string_view kNames[] = {"sqrt",   "pi",  "sin", "cos",  "tan", "cot",      "sec",
                                       "csc",    "log", "ln",  "exp",  "inf", "infinity", "oo",
                                       "or",     "and", "abs", "frac", "cup", "arcsin",   "arccos",
                                       "arctan", "min", "max", "gcd",  "lcm"};

template <typename List>
bool IsOneOf(std::string_view word, const List& list) {
  for (const std::string_view item : list) {
    if (item == word) return true;
  }
  return false;
}

std::string Plain(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size();) {
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      plain += text[i++];
      continue;
    }
    bool known = false;
    for (const Pair& pair : kUnicode) {
      if (text.compare(i, pair.from.size(), pair.from) != 0) continue;
      plain += pair.to;
      i += pair.from.size();
      known = true;
      break;
    }
    if (!known) plain += text[i++];
  }
  return plain;
}

class Tokenizer {
 public:
  explicit Tokenizer(std::string text) : text_(std::move(text)) {}

  std::vector<MathToken> Run() {
    while (at_ < text_.size()) Next();
    Add(Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  char Here(std::size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }
  void Add(Kind kind, std::string text) {
    tokens_.push_back({kind, std::move(text), space_});
    space_ = false;
  }

  void Next() {
    const char c = Here();
    if (IsSpace(c) || c == '$' || c == '~' || c == '`') {
      ++at_;
      space_ = true;
    } else if (IsDigit(c) || (c == '.' && IsDigit(Here(1)))) {
      Number();
    } else if (IsLetter(c)) {
      Letters();
    } else if (c == '\\') {
      Command();
    } else {
      Sign();
    }
  }

  bool ThreeDigits(std::size_t at) const {
    for (std::size_t k = 0; k < 3; ++k) {
      if (at + k >= text_.size() || !IsDigit(text_[at + k])) return false;
    }
    return at + 3 >= text_.size() || !IsDigit(text_[at + 3]);
  }
  /// Bytes of a thousands separator here, 0 if there is none.
  std::size_t Separator() const {
    if (text_.compare(at_, 3, "{,}") == 0 && ThreeDigits(at_ + 3)) return 3;
    if (text_.compare(at_, 2, "\\,") == 0 && ThreeDigits(at_ + 2)) return 2;
    if (text_.compare(at_, 3, ",\\!") == 0 && ThreeDigits(at_ + 3)) return 3;
    return Here() == ',' && depth_ == 0 && ThreeDigits(at_ + 1) ? 1 : 0;
  }
  void Number() {
    std::string digits;
    bool point = false;
    while (at_ < text_.size()) {
      if (IsDigit(Here())) {
        digits += text_[at_++];
      } else if (Here() == '.' && !point && IsDigit(Here(1))) {
        point = true;
        digits += text_[at_++];
      } else if (const std::size_t size = point || digits.size() > 12 ? 0 : Separator()) {
        at_ += size;
      } else {
        break;
      }
    }
    if (Here() == '.' && !point && digits.size() < 20) {  // "5." at the end of a sentence
      std::size_t next = at_ + 1;
      while (next < text_.size() && (IsSpace(text_[next]) || text_[next] == '$')) ++next;
      if (next == text_.size()) at_ = next;
    }
    Add(Kind::kNumber, digits);
  }
  void Letters() {
    std::size_t end = at_;
    while (end < text_.size() && IsLetter(text_[end])) ++end;
    const std::string word = text_.substr(at_, end - at_);
    at_ = end;
    if (word.size() == 1) return Add(Kind::kLetter, word);
    if (IsOneOf(word, kNames) || word.size() > 2 || IsUnit(word)) return Add(Kind::kWord, word);
    for (const char c : word) Add(Kind::kLetter, std::string(1, c));
  }
  static bool IsUnit(std::string_view word) {
    constexpr std::string_view kUnits[] = {"cm", "mm", "km", "kg", "ft", "in", "mg",
                                           "ml", "mL", "Hz", "is", "to", "of", "hr"};
    return IsOneOf(word, kUnits);
  }

  void Command() {
    ++at_;
    if (!IsLetter(Here())) {
      const char c = Here();
      ++at_;
      switch (c) {
        case '\\':
          return Add(Kind::kCommand, "\\");
        case '{':
        case '}':
        case '|':
          return Add(Kind::kCommand, std::string(1, c));
        case '%':
          return Add(Kind::kSign, "%");
        case '(':
        case ')':
        case '[':
        case ']':
        case '$':
        default:
          space_ = true;  // math delimiters and thin spaces
          return;
      }
    }
    std::size_t end = at_;
    while (end < text_.size() && IsLetter(text_[end])) ++end;
    std::string name = text_.substr(at_, end - at_);
    at_ = end;
    if (IsOneOf(name, kLooks)) {
      DropLooks(name);
      return;
    }
    if (IsOneOf(name, kTextCommands)) return Text();
    if (name == "dfrac" || name == "tfrac" || name == "cfrac") name = "frac";
    if (name == "le" || name == "leq" || name == "leqslant") return Add(Kind::kSign, "<=");
    if (name == "ge" || name == "geq" || name == "geqslant") return Add(Kind::kSign, ">=");
    if (name == "lt") return Add(Kind::kSign, "<");
    if (name == "gt") return Add(Kind::kSign, ">");
    if (name == "ne" || name == "neq") return Add(Kind::kSign, "!=");
    if (name == "lbrace" || name == "rbrace") {
      return Add(Kind::kCommand, name == "lbrace" ? "{" : "}");
    }
    if (name == "lvert" || name == "rvert" || name == "vert") return Add(Kind::kSign, "|");
    Add(Kind::kCommand, name);
  }
  void DropLooks(std::string_view name) {
    space_ = true;
    // "^\circ" and "^{\circ}": the sign before goes too.
    const bool degree = name == "circ" || name == "degree";
    if (degree && !tokens_.empty() && tokens_.back().text == "^") tokens_.pop_back();
    if (degree && tokens_.size() > 1 && tokens_.back().text == "{" &&
        tokens_[tokens_.size() - 2].text == "^" && Here() == '}') {
      tokens_.resize(tokens_.size() - 2);
      ++at_;
      depth_ -= depth_ > 0 ? 1 : 0;
    }
    // "\left." and "\right." have no bracket.
    if ((name == "left" || name == "right") && Here() == '.') ++at_;
  }
  void Text() {
    while (IsSpace(Here())) ++at_;
    if (Here() != '{') return;
    int depth = 0;
    std::string inner;
    for (; at_ < text_.size(); ++at_) {
      if (Here() == '{' && depth++ == 0) continue;
      if (Here() == '}' && --depth == 0) break;
      inner += Here();
    }
    ++at_;
    const std::string_view trimmed = Trim(inner);
    if (trimmed.empty()) return;
    if (trimmed == "or" || trimmed == "and") return Add(Kind::kWord, std::string(trimmed));
    // \mathrm{e}, \mathbf{5}: what is a formula stays one. "5\text{ m}" is five metres.
    const bool after_number = !tokens_.empty() && tokens_.back().kind == Kind::kNumber;
    bool formula = trimmed.size() == 1 && (!after_number || trimmed == "e" || trimmed == "i");
    for (const char c : trimmed) formula = formula || IsDigit(c) || c == '\\';
    if (!formula) return Add(Kind::kText, std::string(trimmed));
    if (++nested_ > 8) return;
    for (MathToken& token : Tokenizer(std::string(trimmed)).Run()) {
      if (token.kind != Kind::kEnd) tokens_.push_back(std::move(token));
    }
  }

  void Sign() {
    const char c = Here();
    if ((c == '<' || c == '>' || c == '!') && Here(1) == '=') {
      at_ += 2;
      return Add(Kind::kSign, std::string(1, c) + "=");
    }
    if (c == '*' && Here(1) == '*') {
      at_ += 2;
      return Add(Kind::kSign, "^");
    }
    if (c == '(' || c == '[' || c == '{') ++depth_;
    if ((c == ')' || c == ']' || c == '}') && depth_ > 0) --depth_;
    ++at_;
    Add(Kind::kSign, std::string(1, c));
  }

  std::string text_;
  std::size_t at_ = 0;
  int depth_ = 0, nested_ = 0;
  bool space_ = false;
  std::vector<MathToken> tokens_;
};

}  // namespace

std::vector<MathToken> MathTokens(std::string_view text) { return Tokenizer(Plain(text)).Run(); }

}  // namespace temper::reward
