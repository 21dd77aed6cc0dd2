#pragma once
// What a formula is worth: exactly where it is a fraction, else as numbers.
#include <complex>
#include <optional>

#include "reward/math_parse.h"

namespace temper::reward {

/// The value as a fraction; none with a symbol, a root that is no fraction, pi, or an overflow.
std::optional<Rational> ExactValue(const MathNode& node);

/// The value with every symbol at a number of its own (positive, the same for the same name and
/// trial). None for a list, a relation, a division by zero.
std::optional<std::complex<double>> NumericValue(const MathNode& node, int trial);

bool HasSymbol(const MathNode& node);
bool HasDecimal(const MathNode& node);
/// 1 or -1 for plus or minus infinity, else 0.
int InfinitySign(const MathNode& node);

}  // namespace temper::reward
