#pragma once
// Sixteen float lanes in two AVX2 registers. Included by avx2.cc alone (internal linkage: other
// flags, other code).
#include <immintrin.h>

#include <cstdint>

#include "kernels/exp_constants.h"

namespace temper::kernels {
namespace {

struct Lanes {
  __m256 lo, hi;
};

// 6 x 16 outputs: 12 accumulators, 2 weights, 1 input of 16 registers.
constexpr int kMaxTileRows = 6;
constexpr int kTilePanels = 1;
// Up to so many rows stream through the weights, with so many blocks side by side.
constexpr int kMaxStreamRows = 2;
constexpr int StreamBlocksOf(int rows) { return rows == 1 ? 4 : 2; }

#define TEMPER_LANES [[gnu::always_inline]] inline

TEMPER_LANES Lanes Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
TEMPER_LANES Lanes Broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
TEMPER_LANES Lanes Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
/// Sixteen BF16 numbers: the upper halves of floats.
TEMPER_LANES Lanes Load(const std::uint16_t* p) {
  const auto eight = [](const std::uint16_t* q) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  };
  return {eight(p), eight(p + 8)};
}
/// Sixteen E4M3 codes as half floats of the same fields: value times 2^-8, exact.
TEMPER_LANES Lanes Load(const std::uint8_t* p) {
  const __m128i code = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m256i half = _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(code), 7),
                                        _mm256_set1_epi16(static_cast<short>(0xBF80)));
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(half)),
          _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1))};
}
TEMPER_LANES void Store(float* p, Lanes a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
TEMPER_LANES Lanes Add(Lanes a, Lanes b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
TEMPER_LANES Lanes Sub(Lanes a, Lanes b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
TEMPER_LANES Lanes Mul(Lanes a, Lanes b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
TEMPER_LANES Lanes Div(Lanes a, Lanes b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
TEMPER_LANES Lanes Max(Lanes a, Lanes b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
TEMPER_LANES Lanes Fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
TEMPER_LANES Lanes Negate(Lanes a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}

// Which of the first n lanes exist; n may be anything.
struct Mask {
  __m256i lo, hi;
};
TEMPER_LANES Mask FirstLanes(int n) {
  const __m256i limit = _mm256_set1_epi32(n);
  return {_mm256_cmpgt_epi32(limit, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
          _mm256_cmpgt_epi32(limit, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))};
}
/// Lanes outside the mask are 0 and their memory is not touched.
TEMPER_LANES Lanes Load(const float* p, Mask m) {
  return {_mm256_maskload_ps(p, m.lo), _mm256_maskload_ps(p + 8, m.hi)};
}
TEMPER_LANES void Store(float* p, Lanes a, Mask m) {
  _mm256_maskstore_ps(p, m.lo, a.lo);
  _mm256_maskstore_ps(p + 8, m.hi, a.hi);
}
TEMPER_LANES Lanes Select(Mask m, Lanes a, Lanes b) {
  return {_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(m.lo)),
          _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(m.hi))};
}

TEMPER_LANES float TreeSum(__m256 lo, __m256 hi) {
  const __m256 s8 = _mm256_add_ps(lo, hi);
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
TEMPER_LANES float TreeSum(Lanes a) { return TreeSum(a.lo, a.hi); }
TEMPER_LANES float TreeMax(Lanes a) {
  const __m256 s8 = _mm256_max_ps(a.lo, a.hi);
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
}

// The operations of Exp() in math.cc, lane by lane.
TEMPER_LANES __m256 Exp8(__m256 x) {
  const __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(kExpLog2E), _mm256_set1_ps(kExpMagic));
  const __m256 n = _mm256_sub_ps(t, _mm256_set1_ps(kExpMagic));
  __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-kExpLn2High), x);
  r = _mm256_fmadd_ps(n, _mm256_set1_ps(-kExpLn2Low), r);
  __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(kExpC6), r, _mm256_set1_ps(kExpC5));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(kExpC4));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(kExpC3));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(kExpC2));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  const __m256i bits =
      _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23));
  const __m256 low = _mm256_cmp_ps(x, _mm256_set1_ps(kExpLow), _CMP_LT_OQ);
  const __m256 beyond = _mm256_cmp_ps(x, _mm256_set1_ps(kExpHigh), _CMP_NLE_UQ);
  const __m256 y = _mm256_andnot_ps(low, _mm256_castsi256_ps(bits));
  return _mm256_blendv_ps(y, _mm256_add_ps(x, _mm256_set1_ps(__builtin_inff())), beyond);
}
TEMPER_LANES Lanes Exp(Lanes x) { return {Exp8(x.lo), Exp8(x.hi)}; }

/// Rotates pairs: t holds cos, sin interleaved. Even lanes fma(a, cos, -(b sin)), odd fma(b, cos, a
/// sin).
TEMPER_LANES __m256 Rotate8(__m256 x, __m256 t) {
  const __m256 swapped = _mm256_permute_ps(x, 0xB1);
  const __m256 product = _mm256_mul_ps(swapped, _mm256_movehdup_ps(t));
  return _mm256_fmaddsub_ps(x, _mm256_moveldup_ps(t), product);
}
TEMPER_LANES Lanes Rotate(Lanes x, Lanes t) { return {Rotate8(x.lo, t.lo), Rotate8(x.hi, t.hi)}; }

}  // namespace
}  // namespace temper::kernels
