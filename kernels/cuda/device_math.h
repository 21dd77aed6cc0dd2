#pragma once
// Exp, Sigmoid and Log on the device: the operations of kernels/math.cc and double_math.cc, so the
// same bits. Compiled with -fmad=false: what is fused is written fmaf.
#include <cuda_runtime.h>

#include "kernels/exp_constants.h"

namespace temper::kernels::cuda {

__device__ __forceinline__ float Exp(float x) {
  if (!(x <= kExpHigh)) return x + __uint_as_float(0x7F800000u);
  if (x < kExpLow) return 0.0f;
  const float t = fmaf(x, kExpLog2E, kExpMagic), n = t - kExpMagic;
  const float r = fmaf(n, -kExpLn2Low, fmaf(n, -kExpLn2High, x));
  const float c[] = {kExpC5, kExpC4, kExpC3, kExpC2, 1.0f, 1.0f};
  float p = kExpC6;
#pragma unroll
  for (int i = 0; i < 6; ++i) p = fmaf(p, r, c[i]);
  return __uint_as_float(__float_as_uint(p) + (__float_as_uint(t) << 23));
}

__device__ __forceinline__ float Sigmoid(float x) { return 1.0f / (1.0f + Exp(-x)); }

/// Of a normal positive number or 0: sums of probabilities.
__device__ inline float Log(float value) {
  if (value == 0.0f) return -__uint_as_float(0x7F800000u);
  if (!(value > 0.0f)) return __uint_as_float(0x7FC00000u);
  if (value == __uint_as_float(0x7F800000u)) return value;
  // A float is never subnormal as a double.
  const double x = value;
  const unsigned long long bits = static_cast<unsigned long long>(__double_as_longlong(x));
  const unsigned long long shifted = bits - 0x3FE6A09E667F3BCDull;
  const double e = static_cast<double>(static_cast<int>(static_cast<long long>(shifted) >> 52));
  const double m = __longlong_as_double(static_cast<long long>(bits - ((shifted >> 52) << 52)));
  const double high = m + 1.0, v = high - m, low = (m - (high - v)) + (1.0 - v);
  const double num = m - 1.0, f = num / high;
  const double f_low = (fma(-f, high, num) - f * low) / high, z = f * f;
  double s = 1.0 / 23.0;
  for (int k = 21; k >= 3; k -= 2) s = fma(s, z, 1.0 / k);
  const double tail = 2.0 * f * z * s + 2.0 * f_low;
  const double a = e * 0x1.62e42fefa3800p-1, b = 2.0 * f, sum = a + b, w = sum - a;
  const double rest = (a - (sum - w)) + (b - w);
  const double add = rest + (tail + e * 0x1.ef35793c76730p-45), total = sum + add;
  const double t = total - sum;
  return static_cast<float>(total + ((sum - (total - t)) + (add - t)));
}

}  // namespace temper::kernels::cuda
