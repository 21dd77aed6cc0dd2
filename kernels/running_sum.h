#pragma once
// The running sum of probabilities in the order of the ids, many at a time.

namespace temper::kernels {

inline constexpr int kRunChunk = 256;  // entries between two stored sums

/// sum = fl(sum + p[i]) for i = 0 .. n - 1, bit for bit as that loop, about twenty times as fast.
///
///   p     [n]  finite, >= 0
///   ends  [ceil(n / kRunChunk)]  the sum after each chunk
///
/// Why it is the same: while the sum stays in one binade it is a multiple of its unit q, so
/// fl(sum + p) = sum + fl_q(p) with a rounding that doesn't depend on the sum: integers, which may
/// be added in any order. Chunks that leave the binade or hold an exact tie run as the plain loop.
float RunningSum(const float* p, int n, float* ends);

}  // namespace temper::kernels
