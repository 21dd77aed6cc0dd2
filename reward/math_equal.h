#pragma once
// Are two answers the same? Fractions exactly, other numbers to 1e-9, words as words.
#include <string>

#include "reward/math_parse.h"

namespace temper::reward {

/// An answer, read once.
struct MathAnswer {
  std::string text;                 // as it stands
  std::string normal;               // NormalText
  std::optional<MathNode> formula;  // none for words
};

MathAnswer ReadAnswer(std::string_view text);

/// `decimals`: numbers written with a point are equal when they agree rounded to that many places.
bool SameMath(const MathAnswer& found, const MathAnswer& wanted, int decimals = 6);

}  // namespace temper::reward
