#pragma once
// How the latent row of a token lies in the cache: FP32, BF16 or FP8.
#include <cstddef>
#include <cstdint>

namespace temper::kernels {

enum class CacheType { kF32, kBf16, kFp8 };

/// Bytes of a row [latent + rope], padded to 16. FP8 is FlashMLA's recipe, 656 bytes for 512 + 64:
///   codes   [latent]  E4M3, padded to 4 bytes
///   scales  [ceil(latent/128)]  float powers of two (BlockScale, kPow2), 1 x 128
///   rope    [rope]  BF16
/// Source FlashMLA tests/quant.py.
std::size_t CacheRowBytes(CacheType type, int latent, int rope);

/// row [latent + rope] to the cache; `to` is 4-byte aligned, padding is zeroed.
void StoreCacheRow(CacheType type, const float* row, int latent, int rope, void* to);

/// What attention reads: the stored values as floats (exact; FP8 is code times scale).
void LoadCacheRow(CacheType type, const void* from, int latent, int rope, float* row);

}  // namespace temper::kernels
