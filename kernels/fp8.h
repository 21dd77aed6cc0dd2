#pragma once
// E4M3 ("fn"): codes, the two scale recipes, quantisation of activations and weights.
#include <cstdint>
#include <string>

#include "kernels/thread_pool.h"

namespace temper::kernels {

/// How a block's multiplier follows from its largest magnitude, q = max(amax, 1e-12) / 448 in FP32:
/// kFp32 takes q, kPow2 the smallest power of two >= q (by q's exponent bits).
enum class ScaleRecipe { kFp32, kPow2 };

/// The largest finite magnitude; 0x7f and 0xff are the only NaNs, there is no infinity.
inline constexpr float kE4m3Max = 448.0f;
/// Scales in LinearWeight carry this factor, codes there count as value / kFp8Shift.
inline constexpr float kFp8Shift = 256.0f;

/// The value of a code; NaN for 0x7f and 0xff.
float DecodeE4m3(std::uint8_t code);

/// Nearest code of clamp(x, -448, 448), ties to even; 0x7f for NaN. Signed zeros are kept.
std::uint8_t EncodeE4m3(float x);

/// The multiplier of a block whose largest magnitude is amax (NaN stays NaN).
float BlockScale(float amax, ScaleRecipe recipe);

/// The larger of `most` and the magnitudes of x [n], a NaN counting as larger than everything.
float LargestMagnitude(const float* x, std::int64_t n, float most);

/// A stretch of a block with multiplier s: E4M3(x / s) as floats, and as codes. In place allowed.
void RoundToE4m3(const float* x, std::int64_t n, float s, float* values);
void EncodeE4m3(const float* x, std::int64_t n, float s, std::uint8_t* codes);

/// Activations by blocks of 1 x 128: s = BlockScale(max |x|), value = E4M3(x / s), true division.
///
///   x       [m, k]  row stride ldx
///   values  [m, k]  row stride ldv: the E4M3 values as floats; may alias x with ldv == ldx
///   scales  [m][ceil(k/128)]  contiguous
///
/// A block with a NaN becomes all NaN, as does one with an infinity where x is infinite.
void QuantizeActivations(const float* x, std::int64_t ldx, int m, int k, ScaleRecipe recipe,
                         float* values, std::int64_t ldv, float* scales, ThreadPool& pool);

/// Weights by blocks of 128 x 128, the last ones smaller.
///
///   w       [n, k]  row stride ldw
///   codes   [n, k]  row stride ldc bytes
///   scales  [ceil(n/128)][ceil(k/128)]  multipliers (without kFp8Shift)
void QuantizeWeight(const float* w, std::int64_t ldw, int n, int k, ScaleRecipe recipe,
                    std::uint8_t* codes, std::int64_t ldc, float* scales, ThreadPool& pool);

/// out[i, j] = fl(value of code[i, j] * scale of its block), row stride ldo floats.
void DequantizeWeight(const std::uint8_t* codes, std::int64_t ldc, int n, int k,
                      const float* scales, float* out, std::int64_t ldo, ThreadPool& pool);

/// Why these codes and multipliers can't be weights, or an empty string: a NaN code, or a scale
/// that is zero, negative, not finite, or so large that a dequantised weight could overflow.
std::string CheckFp8Weight(const std::uint8_t* codes, std::int64_t ldc, int n, int k,
                           const float* scales);

/// The two halves of it: of the scales alone, and the place of the first NaN code in so many, or -1.
std::string CheckFp8Scales(const float* scales, int n, int k);
std::int64_t FindNanCode(const std::uint8_t* codes, std::int64_t count);
std::string NanCodeText(std::int64_t row, std::int64_t column);

}  // namespace temper::kernels
