#pragma once
// The pre_tokenizer part of tokenizer.json: cuts text into the pieces that are merged one by one.
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "configs/json.h"
#include "engine/regex.h"

namespace temper::engine {

/// Split (Isolated), Digits and a last ByteLevel, alone or in a Sequence. Patterns are Oniguruma's
/// (Ruby syntax) and run on PCRE2: they are translated, and what has no exact translation is
/// refused.
class PreTokenizer {
 public:
  /// Throws UserError "<where>: ..." naming the unsupported part.
  PreTokenizer(const Json& json, const std::string& where);

  /// Gives the pieces of `text` (valid UTF-8) in order; together they are the text. Throws
  /// UserError when a pattern needs more backtracking than is allowed.
  void Cut(std::string_view text, const std::function<void(std::string_view)>& give) const;

 private:
  struct Cutter;
  void Add(const Json& json, const std::string& where);
  void AddPattern(const std::string& pattern, const std::string& where);

  std::vector<Regex> patterns_;
  std::uint64_t owner_;  // of what threads keep
  bool byte_level_ = false;
};

}  // namespace temper::engine
