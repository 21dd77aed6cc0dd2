#pragma once
// Our own exp, log and sigmoid: the same bits in every variant, no libm.

namespace temper::kernels {

/// e^x as an FMA polynomial after x = n ln2 + r. Relative error <= 2e-7 on [-87, 88]; 0 below
/// -87.33, +inf above 88.72, NaN for NaN; exactly 1 at 0. The vector variants use the same
/// operations lane by lane.
float Exp(float x);

/// Natural logarithm of a positive finite float, relative error <= 2e-7 (absolute near 1); -inf at
/// 0, NaN below.
float Log(float x);

/// 1 / (1 + Exp(-x)).
float Sigmoid(float x);

}  // namespace temper::kernels
