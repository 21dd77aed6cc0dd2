#include "reward/rational.h"

#include <cmath>

namespace temper::reward {
namespace {

using Wide = __int128;
constexpr Wide kLimit = Wide{1} << 120;  // room for one addition

Wide Absolute(Wide x) { return x < 0 ? -x : x; }

Wide Gcd(Wide a, Wide b) {
  while (b != 0) {
    const Wide rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

std::optional<Wide> Times(Wide a, Wide b) {
  Wide product = 0;
  if (__builtin_mul_overflow(a, b, &product) || Absolute(product) > kLimit) return std::nullopt;
  return product;
}

std::optional<Wide> IntegerRoot(Wide x, int degree) {
  const auto guess =
      static_cast<Wide>(std::llround(std::pow(static_cast<double>(x), 1.0 / degree)));
  for (Wide root = guess > 1 ? guess - 1 : 0; root <= guess + 1; ++root) {
    Wide power = 1;
    bool fits = true;
    for (int i = 0; i < degree && fits; ++i) {
      const auto next = Times(power, root);
      fits = next.has_value();
      if (fits) power = *next;
    }
    if (fits && power == x) return root;
  }
  return std::nullopt;
}

}  // namespace

double Rational::Value() const { return static_cast<double>(top) / static_cast<double>(bottom); }

std::optional<Rational> MakeRational(__int128 top, __int128 bottom) {
  if (bottom == 0 || Absolute(top) > kLimit || Absolute(bottom) > kLimit) return std::nullopt;
  if (bottom < 0) {
    top = -top;
    bottom = -bottom;
  }
  if (bottom != 1) {
    const Wide common = Gcd(Absolute(top), bottom);
    top /= common;
    bottom /= common;
  }
  return Rational{top, bottom};
}

std::optional<Rational> Add(const Rational& a, const Rational& b) {
  const auto left = Times(a.top, b.bottom), right = Times(b.top, a.bottom);
  const auto bottom = Times(a.bottom, b.bottom);
  if (!left || !right || !bottom) return std::nullopt;
  return MakeRational(*left + *right, *bottom);
}

std::optional<Rational> Subtract(const Rational& a, const Rational& b) {
  return Add(a, {-b.top, b.bottom});
}

std::optional<Rational> Multiply(const Rational& a, const Rational& b) {
  const auto top = Times(a.top, b.top), bottom = Times(a.bottom, b.bottom);
  if (!top || !bottom) return std::nullopt;
  return MakeRational(*top, *bottom);
}

std::optional<Rational> Divide(const Rational& a, const Rational& b) {
  const auto top = Times(a.top, b.bottom), bottom = Times(a.bottom, b.top);
  if (!top || !bottom) return std::nullopt;
  return MakeRational(*top, *bottom);
}

std::optional<Rational> Power(const Rational& base, const Rational& exponent) {
  if (!exponent.IsInteger() || Absolute(exponent.top) > 1000) return std::nullopt;
  if (base.top == 0 && exponent.top <= 0) return std::nullopt;
  std::optional<Rational> power = Rational{1, 1};
  for (Wide i = Absolute(exponent.top); i > 0 && power; --i) power = Multiply(*power, base);
  if (power && exponent.top < 0) return Divide({1, 1}, *power);
  return power;
}

std::optional<Rational> ExactRoot(const Rational& a, int degree) {
  if (degree < 2 || degree > 64 || (a.top < 0 && degree % 2 == 0)) return std::nullopt;
  const auto top = IntegerRoot(Absolute(a.top), degree), bottom = IntegerRoot(a.bottom, degree);
  if (!top || !bottom) return std::nullopt;
  return Rational{a.top < 0 ? -*top : *top, *bottom};
}

}  // namespace temper::reward
