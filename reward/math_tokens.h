#pragma once
// The words of a formula: numbers, letters, commands, signs.
#include <string>
#include <string_view>
#include <vector>

namespace temper::reward {

struct MathToken {
  enum class Kind {
    kNumber,   // digits with one point; no separators
    kLetter,   // one letter (or Greek command) that is a variable
    kWord,     // letters together that are no product: a unit, a function's name, "or"
    kText,     // what stood in \text{} and the like
    kCommand,  // without the backslash
    kSign,     // one character, or <=, >=, !=
    kEnd,
  };
  Kind kind = Kind::kEnd;
  std::string text;
  bool space_before = false;
};

/// Drops what only changes the looks (\left, \, $ \displaystyle ...), joins thousands (1,234 and
/// 1{,}234 and 1\,234), writes Unicode signs as commands.
std::vector<MathToken> MathTokens(std::string_view text);

}  // namespace temper::reward
