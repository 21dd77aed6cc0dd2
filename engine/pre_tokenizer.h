#pragma once
// The pre_tokenizer part of tokenizer.json: cuts text into the pieces that are merged one by one.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "configs/json.h"

namespace temper::engine {

/// Split (Isolated), Digits and a last ByteLevel, alone or in a Sequence. Patterns are Oniguruma's
/// (Ruby syntax) and run on PCRE2: they are translated, and what has no exact translation is
/// refused.
class PreTokenizer {
 public:
  /// Throws UserError "<where>: ..." naming the unsupported part.
  PreTokenizer(const Json& json, const std::string& where);
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;

  /// Gives the pieces of `text` (valid UTF-8) in order; together they are the text. Throws
  /// UserError when a pattern needs more backtracking than is allowed.
  void Cut(std::string_view text, const std::function<void(std::string_view)>& give) const;

 private:
  struct Pattern;
  struct Cutter;
  void Add(const Json& json, const std::string& where);
  void AddPattern(const std::string& pattern, const std::string& where);

  std::vector<Pattern> patterns_;
  std::uint64_t owner_;  // of what threads keep
  bool byte_level_ = false;
};

/// An Oniguruma pattern as PCRE2 (UTF and UCP) must spell it. Throws UserError "<where>: ..." for
/// what has no exact counterpart: \w, \b, \h, ^, nested or intersected classes, {n}+, script names,
/// inline options but (?i:...).
std::string TranslatePattern(std::string_view pattern, const std::string& where);

/// Characters of a general category ("L", "Lu", ...) that PCRE2's tables may lack, as the inside of a class.
std::string CategoryAdditions(std::string_view category);

}  // namespace temper::engine
