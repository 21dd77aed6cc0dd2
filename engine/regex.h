#pragma once
// A regular expression of tokenizer.json: Oniguruma's (Ruby syntax), run on PCRE2 within bounds.
#include <memory>
#include <string>
#include <string_view>

namespace temper::engine {

class Regex {
 public:
  /// Throws UserError "<where>: ..." for what is broken or has no exact translation.
  Regex(const std::string& pattern, const std::string& where);
  ~Regex();
  Regex(Regex&&) noexcept;

  /// The first match in `text` (valid UTF-8) that begins at `from` or later; it may be empty.
  /// Throws UserError where the pattern needs more backtracking than is allowed.
  bool Find(std::string_view text, std::size_t from, std::size_t* begin, std::size_t* end) const;
  /// Whether a match may be empty; false is certain.
  bool MayBeEmpty() const;

 private:
  struct Code;
  std::string pattern_, where_;
  std::unique_ptr<Code> code_;
};

/// An Oniguruma pattern as PCRE2 (UTF and UCP) must spell it. Throws UserError "<where>: ..." for
/// what has no exact counterpart: \w, \b, \h, ^, nested or intersected classes, {n}+, script names,
/// inline options but (?i:...).
std::string TranslatePattern(std::string_view pattern, const std::string& where);

/// Characters of a general category ("L", "Lu", ...) that PCRE2's tables may lack, as the inside of
/// a class.
std::string CategoryAdditions(std::string_view category);

}  // namespace temper::engine
