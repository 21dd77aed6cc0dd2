#pragma once
// The narrow formats on the device: BF16, E4M3, block scales, rows of the latent cache.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cache_row.h"
#include "kernels/cuda/launch.h"
#include "kernels/fp8.h"
#include "kernels/linear.h"

namespace temper::kernels::cuda {

__device__ __forceinline__ float FromBf16(std::uint16_t x) {
  return __uint_as_float(static_cast<unsigned>(x) << 16);
}

__device__ __forceinline__ std::uint16_t ToBf16(float x) {
  const unsigned bits = __float_as_uint(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FC0;
  return static_cast<std::uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

/// Value times 2^-8, as LinearWeight counts codes: the fields of a float with four bits of
/// exponent, lifted by an exact product (subnormal codes are subnormal floats first).
__device__ __forceinline__ float FromE4m3Shifted(unsigned code) {
  const float size = __uint_as_float((code & 0x7Fu) << 20) * 0x1p112f;
  return __uint_as_float(__float_as_uint(size) | ((code & 0x80u) << 24));
}

/// EncodeE4m3: nearest code of clamp(x), ties to even, 0x7f for NaN.
__device__ __forceinline__ unsigned ToE4m3(float x) {
  const unsigned bits = __float_as_uint(x), size = bits & 0x7FFFFFFFu;
  const unsigned sign = (bits >> 24) & 0x80u;
  if (size > 0x7F800000u) return 0x7Fu;
  if (size >= 0x43E00000u) return sign | 0x7Eu;  // 448 and more
  if (size < 0x3C800000u) {                      // below 2^-6 the codes are 2^-9 apart
    const float magic = 24576.0f;                // as floats near 1.5 * 2^14 are
    const float rounded = (__uint_as_float(size) + magic) - magic;
    return sign | static_cast<unsigned>(rounded * 512.0f);
  }
  const unsigned rounded = size + 0x7FFFFu + ((size >> 20) & 1u);
  return sign | ((rounded >> 20) - ((127u - 7u) << 3));
}

__device__ __forceinline__ float BlockScaleOf(float amax, ScaleRecipe recipe) {
  const float quotient = (amax < 1e-12f ? 1e-12f : amax) / kE4m3Max;
  const unsigned bits = __float_as_uint(quotient);
  if (recipe == ScaleRecipe::kFp32 || bits >= 0x7F800000u) return quotient;
  return __uint_as_float((bits + 0x7FFFFFu) & 0x7F800000u);
}

/// Lane l of a warp holds entries 4 l .. 4 l + 3 of a block of 128, zeros past its end: the block's
/// multiplier, and the entries' codes as a word. As integers a NaN is larger than everything.
__device__ __forceinline__ unsigned QuantizeBlock(const float (&x)[4], ScaleRecipe recipe,
                                                  float* scale) {
  unsigned most = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) most = max(most, __float_as_uint(x[i]) & 0x7FFFFFFFu);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    most = max(most, __shfl_xor_sync(kAllLanes, most, step));
  }
  const float s = BlockScaleOf(__uint_as_float(most), recipe);
  *scale = s;
  unsigned word = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) word |= ToE4m3(x[i] / s) << (8 * i);
  return word;
}

/// Where the parts of an FP8 cache row begin (kernels/cache_row.h).
struct Fp8RowLayout {
  int scales, rope;  // bytes
};
__host__ __device__ __forceinline__ Fp8RowLayout Fp8LayoutOf(int latent) {
  const int scales = (latent + 3) / 4 * 4;
  return {scales, scales + 4 * ((latent + kBlock - 1) / kBlock)};
}

/// Entry i of a cache row as a float: LoadCacheRow() for one number.
__device__ __forceinline__ float CacheValue(CacheType type, const unsigned char* row, int latent,
                                            int i) {
  if (type == CacheType::kF32) return reinterpret_cast<const float*>(row)[i];
  if (type == CacheType::kBf16) return FromBf16(reinterpret_cast<const std::uint16_t*>(row)[i]);
  const Fp8RowLayout at = Fp8LayoutOf(latent);
  if (i >= latent) {
    return FromBf16(reinterpret_cast<const std::uint16_t*>(row + at.rope)[i - latent]);
  }
  const float s = reinterpret_cast<const float*>(row + at.scales)[i / kBlock];
  return FromE4m3Shifted(row[i]) * (s * kFp8Shift);
}

}  // namespace temper::kernels::cuda
