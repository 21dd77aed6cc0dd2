#include "engine/unicode.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdexcept>
#include <string>

#include "engine/utf8.h"

namespace temper::engine {
namespace {

// A class of characters as a compiled pattern: made once, kept for good, shared by all threads.
class CharacterClass {
 public:
  explicit CharacterClass(const char* pattern) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &error, &offset, nullptr);
    if (!code_)
      throw std::logic_error(std::string("a character class does not compile: ") + pattern);
  }
  bool Has(std::uint32_t c) const {
    std::string text;
    AppendUtf8(c, &text);
    pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
    const int rc = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0,
                               data, nullptr);
    pcre2_match_data_free(data);
    return rc >= 0;
  }

 private:
  pcre2_code* code_ = nullptr;
};

}  // namespace

bool IsPrintable(std::uint32_t c) {
  if (c < 0x7F) return c >= 0x20;
  static const CharacterClass& hidden = *new CharacterClass("[\\p{C}\\p{Z}]");
  return !hidden.Has(c);
}

bool IsPythonSpace(std::uint32_t c) { return IsWhiteSpace(c) || (c >= 0x1C && c <= 0x1F); }

bool IsWordCharacter(std::uint32_t c) {
  if (c < 0x80) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
  }
  static const CharacterClass& word =
      *new CharacterClass("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]");
  return word.Has(c);
}

}  // namespace temper::engine
