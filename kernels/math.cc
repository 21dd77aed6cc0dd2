#include "kernels/math.h"

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/exp_constants.h"
#include "kernels/ops.h"

namespace temper::kernels {

float Exp(float x) {
  if (!(x <= kExpHigh)) return x + HUGE_VALF;  // +inf, or the NaN that came in
  if (x < kExpLow) return 0.0f;
  const float t = std::fma(x, kExpLog2E, kExpMagic);
  const float n = t - kExpMagic;
  float r = std::fma(n, -kExpLn2High, x);
  r = std::fma(n, -kExpLn2Low, r);
  float p = std::fma(kExpC6, r, kExpC5);
  p = std::fma(p, r, kExpC4);
  p = std::fma(p, r, kExpC3);
  p = std::fma(p, r, kExpC2);
  p = std::fma(p, r, 1.0f);
  p = std::fma(p, r, 1.0f);
  // Times 2^n by integer addition on the exponent: exact, and the result is never subnormal here.
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) +
                              (std::bit_cast<std::uint32_t>(t) << 23));
}

float Sigmoid(float x) { return 1.0f / (1.0f + Exp(-x)); }

// One logarithm a row at most, so double costs nothing and rounds once.
float Log(float x) { return static_cast<float>(LogDouble(static_cast<double>(x))); }

}  // namespace temper::kernels
