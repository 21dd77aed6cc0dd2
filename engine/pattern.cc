// Oniguruma (Ruby syntax, Unicode) to PCRE2: the same strings match, or the pattern is refused.
#include <algorithm>
#include <array>
#include <string>

#include "configs/error.h"
#include "configs/json.h"
#include "engine/regex.h"

namespace temper::engine {
namespace {

// Oniguruma's \s; PCRE2's also has U+180E, which has not been a space since Unicode 6.3.
constexpr const char* kSpace = "\\t-\\r\\x{85}\\p{Z}";
// Mn and Mc exchanged a character, C and Cn lose what is assigned: without them additions say it
// all.
constexpr std::array<std::string_view, 32> kCategories = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Me", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps",
    "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "Cc", "Cf", "Co"};

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where)
      : pattern_(pattern), where_(where) {}

  std::string Run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        Escape(false);
      } else if (c == '[') {
        Class();
      } else if (c == '(') {
        Group();
      } else if (c == '$') {
        // The end of any line.
        out_ += "(?:(?=\\n)|\\z)";
        ++at_;
      } else if (c == '^') {
        Refuse("^");
      } else if (c == '{') {
        Braces();
      } else {
        out_ += c;
        ++at_;
      }
    }
    return out_;
  }

 private:
  [[noreturn]] void Refuse(const std::string& what) const {
    throw UserError(where_ + ": pattern " + configs::Quote(pattern_) + ": " + what +
                    " is not supported");
  }
  char Next(std::size_t ahead) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }

  void Escape(bool in_class) {
    const char c = Next(1);
    if (c == 'p' || c == 'P') {
      Property(c, in_class);
      return;
    }
    if (c == 'u') {
      const std::string_view hex = pattern_.substr(std::min(at_ + 2, pattern_.size()), 4);
      if (hex.size() != 4 || hex.find_first_not_of("0123456789abcdefABCDEF") != hex.npos) {
        Refuse("\\u without four hexadecimal digits");
      }
      out_ += "\\x{" + std::string(hex) + "}";
      at_ += 6;
      return;
    }
    if (c == 's') {
      out_ += in_class ? std::string(kSpace) : "[" + std::string(kSpace) + "]";
    } else if (c == 'S' && !in_class) {
      out_ += "[^" + std::string(kSpace) + "]";
    } else if (c == 'd') {
      const std::string digits = "\\p{Nd}" + CategoryAdditions("Nd");
      out_ += in_class ? digits : "[" + digits + "]";
    } else if (c == 'r' || c == 'n' || c == 't' ||
               std::string_view("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ").find(c) !=
                   std::string_view::npos) {
      out_ += '\\';
      out_ += c;
    } else {
      Refuse(std::string("\\") + (c ? std::string(1, c) : ""));
    }
    at_ += 2;
  }

  void Property(char kind, bool in_class) {
    const std::size_t close = Next(2) == '{' ? pattern_.find('}', at_) : pattern_.npos;
    if (close == pattern_.npos) Refuse("\\p without {...}");
    std::string_view name = pattern_.substr(at_ + 3, close - at_ - 3);
    const bool negated = !name.empty() && name[0] == '^';
    if (negated) name.remove_prefix(1);
    if (std::find(kCategories.begin(), kCategories.end(), name) == kCategories.end()) {
      Refuse("\\p{" + std::string(name) + "}");
    }
    const bool complement = negated != (kind == 'P');
    if (in_class && complement) Refuse("\\P{" + std::string(name) + "} inside a class");
    if (!in_class) out_ += complement ? "[^" : "[";
    out_ += "\\p{" + std::string(name) + "}" + CategoryAdditions(name);
    if (!in_class) out_ += ']';
    at_ = close + 1;
  }

  void Class() {
    out_ += '[';
    ++at_;
    if (Next(0) == '^') {
      out_ += '^';
      ++at_;
    }
    if (Next(0) == ']') Refuse("an empty class");
    while (Next(0) != ']') {
      if (at_ >= pattern_.size()) Refuse("a class without end");
      const char c = pattern_[at_];
      if (c == '\\') {
        Escape(true);
      } else if (c == '[' || (c == '&' && Next(1) == '&')) {
        Refuse("a class inside a class");
      } else {
        out_ += c;
        ++at_;
      }
    }
    out_ += ']';
    ++at_;
  }

  void Group() {
    if (Next(1) != '?') {
      out_ += "(?:";
      ++at_;
      return;
    }
    for (const std::string_view open : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?i:"}) {
      if (pattern_.substr(at_, open.size()) != open) continue;
      out_ += open;
      at_ += open.size();
      return;
    }
    Refuse("this kind of group");
  }

  // {n}, {n,}, {n,m}: Ruby reads a + after it as another repeat, PCRE2 as possession; {,m} is
  // literal in PCRE2.
  void Braces() {
    const std::size_t close = pattern_.find('}', at_);
    if (close == pattern_.npos) Refuse("{ without }");
    const std::string_view inside = pattern_.substr(at_ + 1, close - at_ - 1);
    if (inside.empty() || inside[0] == ',' ||
        inside.find_first_not_of("0123456789,") != inside.npos) {
      Refuse("{" + std::string(inside) + "}");
    }
    if (close + 1 < pattern_.size() && pattern_[close + 1] == '+') Refuse("{...}+");
    out_ += pattern_.substr(at_, close + 1 - at_);
    at_ = close + 1;
  }

  std::string_view pattern_;
  const std::string& where_;
  std::size_t at_ = 0;
  std::string out_;
};

}  // namespace

std::string TranslatePattern(std::string_view pattern, const std::string& where) {
  return Translator(pattern, where).Run();
}

}  // namespace temper::engine
