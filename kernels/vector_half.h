#pragma once
// Tiles of 7 to 12 rows x 8 outputs for machines with sixteen registers: narrow weights decoded
// once for more rows than a tile of sixteen outputs has registers for. Included as vector_linear.h
// is.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/linear.h"
#include "kernels/variant.h"
#include "kernels/vector_stream.h"

namespace temper::kernels {
namespace {

constexpr int kHalf = 8, kHalfRows = 12;

TEMPER_LANES __m256 LoadHalf(const std::uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
/// As Load(): the codes' bits are those of half floats.
TEMPER_LANES __m256 LoadHalf(const std::uint8_t* p) {
  const __m128i code = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtph_ps(_mm_and_si128(_mm_slli_epi16(_mm_cvtepi8_epi16(code), 7),
                                       _mm_set1_epi16(static_cast<short>(0xBF80))));
}

/// LinearTile() for one half of one panel: w points at its first weight, scale [R].
template <typename Element, int R>
void HalfTile(const Element* w, int depth, const float* x, std::int64_t ldx, const float* scale,
              bool first, float* y, std::int64_t ldy) {
  __m256 sum[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) sum[r] = _mm256_setzero_ps();
#pragma GCC unroll 2
  for (int j = 0; j < depth; ++j, w += kPanel) {
    if (j % kLineInputs<Element> == 0) Prefetch(w + kAhead<Element> * kPanel);
    const __m256 weight = LoadHalf(w);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      sum[r] = _mm256_fmadd_ps(weight, _mm256_broadcast_ss(x + r * ldx + j), sum[r]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const __m256 before = first ? _mm256_setzero_ps() : _mm256_loadu_ps(y + r * ldy);
    _mm256_storeu_ps(y + r * ldy, _mm256_fmadd_ps(sum[r], _mm256_set1_ps(scale[r]), before));
  }
}

template <typename Element>
struct HalfTable {
  void (*rows[kHalfRows + 1])(const Element*, int, const float*, std::int64_t, const float*, bool,
                              float*, std::int64_t);
};

template <typename Element, int... R>
constexpr HalfTable<Element> MakeHalfTiles(std::integer_sequence<int, R...>) {
  return {{nullptr, HalfTile<Element, R + 1>...}};
}

template <typename Element>
constexpr HalfTable<Element> kHalfTiles =
    MakeHalfTiles<Element>(std::make_integer_sequence<int, kHalfRows>{});

/// One panel of one block for up to kHalfRows rows; the panel may have fewer than 16 outputs.
template <typename Element>
void HalfPanel(const LinearBlock& b, const Element* w, const float* x, std::int64_t ldx, int panel,
               int k0, const float* scale) {
  const auto tile = kHalfTiles<Element>.rows[b.m];
  const int outputs = std::min(b.w.n - panel * kPanel, kPanel);
  const int depth = std::min(kBlock, b.w.k - k0);
  float* y = b.y + panel * kPanel;
  if (outputs == kPanel) {
    tile(w, depth, x, ldx, scale, k0 == 0, y, b.ldy);
    tile(w + kHalf, depth, x, ldx, scale, k0 == 0, y + kHalf, b.ldy);
    return;
  }
  alignas(64) float buffer[kHalfRows * kPanel];
  for (int r = 0; r < b.m && k0 > 0; ++r) std::copy_n(y + r * b.ldy, outputs, buffer + r * kPanel);
  tile(w, depth, x, ldx, scale, k0 == 0, buffer, kPanel);
  tile(w + kHalf, depth, x, ldx, scale, k0 == 0, buffer + kHalf, kPanel);
  for (int r = 0; r < b.m; ++r) std::copy_n(buffer + r * kPanel, outputs, y + r * b.ldy);
}

}  // namespace
}  // namespace temper::kernels
