// Logarithm, power, sine and cosine in double without libm: for tables and scales, not for hot
// paths.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/ops.h"

namespace temper::kernels {
namespace {

constexpr double kRound = 6755399441055744.0;      // 1.5 * 2^52: adding it rounds to an integer
constexpr double kLn2High = 0x1.62e42fefa3800p-1;  // 42 bits: times an exponent it is exact
constexpr double kLn2Low = 0x1.ef35793c76730p-45;

/// An unevaluated sum high + low, |low| <= ulp(high) / 2.
struct Pair {
  double high, low;
};

Pair TwoSum(double a, double b) {
  const double s = a + b, v = s - a;
  return {s, (a - (s - v)) + (b - v)};
}

/// ln x for positive finite x, relative error about 2^-62.
Pair LogPair(double x) {
  int exponent = 0;
  if (x < std::numeric_limits<double>::min()) {
    x = x * 0x1p54;
    exponent = -54;
  }
  std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
  // m in [sqrt(1/2), sqrt 2), so that ln m needs no large exponent to cancel against.
  const std::uint64_t shifted = bits - 0x3FE6A09E667F3BCDull;
  exponent += static_cast<int>(static_cast<std::int64_t>(shifted) >> 52);
  bits -= (shifted >> 52) << 52;
  const double m = std::bit_cast<double>(bits);
  // ln m = 2 atanh f with f = (m - 1) / (m + 1); the division's remainder gives f's low part.
  const double num = m - 1.0;
  const Pair den = TwoSum(m, 1.0);
  const double f = num / den.high;
  const double f_low = (std::fma(-f, den.high, num) - f * den.low) / den.high;
  const double z = f * f;
  double s = 1.0 / 23.0;
  for (int k = 21; k >= 3; k -= 2) s = std::fma(s, z, 1.0 / k);
  const double tail = 2.0 * f * z * s + 2.0 * f_low;
  const double e = exponent;
  const Pair sum = TwoSum(e * kLn2High, 2.0 * f);
  return TwoSum(sum.high, sum.low + (tail + e * kLn2Low));
}

/// e^(high + low).
double ExpPair(Pair x) {
  if (!(x.high < 709.8)) return x.high + std::numeric_limits<double>::infinity();
  if (x.high < -745.2) return 0.0;
  const double n = std::fma(x.high, 1.4426950408889634, kRound) - kRound;
  double r = std::fma(n, -kLn2High, x.high);
  r = r + std::fma(n, -kLn2Low, x.low);
  double p = 1.0 / 87178291200.0;  // 1/14!
  double factorial = 87178291200.0;
  for (int k = 14; k >= 1; --k) {
    factorial = factorial / k;
    p = std::fma(p, r, 1.0 / factorial);
  }
  // Two factors: the result may be subnormal, or 2^1024 times something below one.
  const int whole = static_cast<int>(n), half = whole / 2;
  const auto power = [](int k) {
    return std::bit_cast<double>(static_cast<std::uint64_t>(k + 1023) << 52);
  };
  return p * power(half) * power(whole - half);
}

struct SinCos {
  double sin, cos;
};

/// |x| < 2^30. Reduction by pi/2 in three parts with fused multiply-adds, then Taylor sums on |r|
/// <= pi/4.
SinCos SineCosine(double x) {
  constexpr double kHigh = 0x1.921fb54442d18p+0, kMiddle = 0x1.1a62633145c07p-54,
                   kLow = -0x1.f1976b7ed8fbcp-110;
  const double t = std::fma(x, 0.63661977236758134, kRound);
  const double n = t - kRound;
  double r = std::fma(n, -kHigh, x);
  r = std::fma(n, -kMiddle, r);
  r = std::fma(n, -kLow, r);
  const double z = r * r;
  double s = -1.0 / 1307674368000.0;       // 1/15!
  s = std::fma(s, z, 1.0 / 6227020800.0);  // 1/13!
  s = std::fma(s, z, -1.0 / 39916800.0);   // 1/11!
  s = std::fma(s, z, 1.0 / 362880.0);      // 1/9!
  s = std::fma(s, z, -1.0 / 5040.0);
  s = std::fma(s, z, 1.0 / 120.0);
  s = std::fma(s, z, -1.0 / 6.0);
  const double sin = std::fma(s * z, r, r);
  double c = 1.0 / 20922789888000.0;         // 1/16!
  c = std::fma(c, z, -1.0 / 87178291200.0);  // 1/14!
  c = std::fma(c, z, 1.0 / 479001600.0);     // 1/12!
  c = std::fma(c, z, -1.0 / 3628800.0);
  c = std::fma(c, z, 1.0 / 40320.0);
  c = std::fma(c, z, -1.0 / 720.0);
  c = std::fma(c, z, 1.0 / 24.0);
  c = std::fma(c, z, -0.5);
  const double cos = std::fma(c, z, 1.0);
  switch (std::bit_cast<std::uint64_t>(t) & 3) {
    case 0:
      return {sin, cos};
    case 1:
      return {cos, -sin};
    case 2:
      return {-sin, -cos};
    default:
      return {-cos, sin};
  }
}

}  // namespace

double LogDouble(double x) {
  if (x == 0.0) return -std::numeric_limits<double>::infinity();
  if (!(x > 0.0)) return std::numeric_limits<double>::quiet_NaN();
  if (x == std::numeric_limits<double>::infinity()) return x;
  const Pair log = LogPair(x);
  return log.high + log.low;
}

double Pow(double base, double exponent) {
  if (exponent == 0.0 || base == 1.0) return 1.0;
  if (base == 0.0) return exponent > 0.0 ? 0.0 : std::numeric_limits<double>::infinity();
  if (!(base > 0.0)) return std::numeric_limits<double>::quiet_NaN();
  if (base == std::numeric_limits<double>::infinity()) return exponent > 0.0 ? base : 0.0;
  const Pair log = LogPair(base);
  const double high = exponent * log.high;
  if (!(std::fabs(high) < 1e4)) return ExpPair({high, 0.0});
  return ExpPair({high, std::fma(exponent, log.high, -high) + exponent * log.low});
}

void RopeTable(const double* inv_freq, int dim, int positions, double amplitude, float* table) {
  for (std::int64_t p = 0; p < positions; ++p) {
    for (int i = 0; i < dim / 2; ++i) {
      const SinCos angle = SineCosine(static_cast<double>(p) * inv_freq[i]);
      table[p * dim + 2 * i] = static_cast<float>(angle.cos * amplitude);
      table[p * dim + 2 * i + 1] = static_cast<float>(angle.sin * amplitude);
    }
  }
}

}  // namespace temper::kernels
