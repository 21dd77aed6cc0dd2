#pragma once
// Keys of the cache as the attention kernels want them: rows of floats, tiles of 16 keys, strips of
// 16 dimensions. Included as vector_linear.h is.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/bf16.h"
#include "kernels/cache_row.h"
#include "kernels/fp8.h"
#include "kernels/fp8_table.h"
#include "kernels/linear.h"
#include "kernels/transpose8.h"

namespace temper::kernels {
namespace {

/// Reads rows of one cache type; every number as LoadCacheRow() gives it.
struct KeyReader {
  CacheType type;
  int latent, rope;

  const float* Floats(const char* key) const { return reinterpret_cast<const float*>(key); }

  /// Latent dimensions [d, d + 16), d a multiple of 16, all there.
  TEMPER_LANES Lanes Latent(const char* key, int d) const {
    switch (type) {
      case CacheType::kF32:
        return Load(Floats(key) + d);
      case CacheType::kBf16:
        return Load(reinterpret_cast<const std::uint16_t*>(key) + d);
      case CacheType::kFp8:
        break;
    }
    return Mul(Load(reinterpret_cast<const std::uint8_t*>(key) + d), Broadcast(Scale(key, d)));
  }

  /// One latent dimension.
  float LatentAt(const char* key, int d) const {
    if (type == CacheType::kF32) return Floats(key)[d];
    if (type == CacheType::kBf16) return DecodeBf16(reinterpret_cast<const std::uint16_t*>(key)[d]);
    return kShiftedE4m3.value[static_cast<unsigned char>(key[d])] * Scale(key, d);
  }

  /// The whole row [latent + rope].
  void Row(const char* key, float* out) const {
    if (type == CacheType::kF32) {
      std::copy_n(Floats(key), latent + rope, out);
      return;
    }
    if (type == CacheType::kBf16) return Bf16(key, latent + rope, out);
    int d = 0;
    for (; d + 16 <= latent; d += 16) Store(out + d, Latent(key, d));
    for (; d < latent; ++d) out[d] = LatentAt(key, d);
    Bf16(key + ScalesAt() + 4 * ((latent + kBlock - 1) / kBlock), rope, out + latent);
  }

 private:
  std::int64_t ScalesAt() const { return (std::int64_t{latent} + 3) / 4 * 4; }

  /// With the factor that codes lack: a power of two, so that the product is exact.
  TEMPER_LANES float Scale(const char* key, int d) const {
    float s;
    std::memcpy(&s, key + ScalesAt() + 4 * (d / kBlock), 4);
    return s * kFp8Shift;
  }

  static void Bf16(const char* from, int n, float* out) {
    const auto* code = reinterpret_cast<const std::uint16_t*>(from);
    int i = 0;
    for (; i + 16 <= n; i += 16) Store(out + i, Load(code + i));
    for (; i < n; ++i) out[i] = DecodeBf16(code[i]);
  }
};

/// Tiles [ceil(n/16)][dim][16] of n keys. Lanes past n hold some finite or visible key's numbers or
/// 0: they are masked before anything is summed.
void TransposeKeys(const float* const* key, int n, int dim, float* tile) {
  for (int first = 0; first < n; first += 16, tile += 16 * dim) {
    const float* row[16];
    for (int i = 0; i < 16; ++i) row[i] = key[first + i < n ? first + i : first];
    const bool half = n - first <= 8;
    int d = 0;
    for (; d + 8 <= dim; d += 8) {
      Transpose8([&](int i) { return row[i] + d; }, tile + 16 * d, 16);
      if (!half) Transpose8([&](int i) { return row[8 + i] + d; }, tile + 16 * d + 8, 16);
      for (int i = 0; i < 8 && half; ++i)
        _mm256_storeu_ps(tile + 16 * (d + i) + 8, _mm256_setzero_ps());
    }
    for (; d < dim; ++d) {
      for (int i = 0; i < 16; ++i) tile[16 * d + i] = row[i][d];
    }
  }
}

/// Strip [n][16] of latent dimensions [d, d + columns) of n keys, zeros past them.
void CopyStrip(const KeyReader& reader, const char* const* key, int n, int d, int columns,
               float* strip) {
  if (columns == 16) {
    for (int j = 0; j < n; ++j) Store(strip + 16 * j, reader.Latent(key[j], d));
    return;
  }
  for (int j = 0; j < n; ++j) {
    for (int i = 0; i < 16; ++i)
      strip[16 * j + i] = i < columns ? reader.LatentAt(key[j], d + i) : 0.0f;
  }
}

}  // namespace
}  // namespace temper::kernels
