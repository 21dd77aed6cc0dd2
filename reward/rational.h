#pragma once
// Exact fractions of 128-bit integers; what does not fit is none.
#include <cstdint>
#include <optional>

namespace temper::reward {

/// Lowest terms, denominator > 0.
struct Rational {
  __int128 top = 0, bottom = 1;

  bool operator==(const Rational&) const = default;
  double Value() const;
  bool IsInteger() const { return bottom == 1; }
};

/// None for a zero denominator or one that does not fit.
std::optional<Rational> MakeRational(__int128 top, __int128 bottom);
std::optional<Rational> Add(const Rational& a, const Rational& b);
std::optional<Rational> Subtract(const Rational& a, const Rational& b);
std::optional<Rational> Multiply(const Rational& a, const Rational& b);
std::optional<Rational> Divide(const Rational& a, const Rational& b);
/// Whole exponents of at most 1000.
std::optional<Rational> Power(const Rational& base, const Rational& exponent);
/// The square root where it is a fraction.
std::optional<Rational> ExactRoot(const Rational& a, int degree);

}  // namespace temper::reward
