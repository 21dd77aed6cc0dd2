#pragma once
// Sixteen float lanes in one AVX-512 register. Included by avx512.cc alone (internal linkage: other
// flags, other code).
#include <immintrin.h>

#include <cstdint>

#include "kernels/exp_constants.h"
#include "kernels/fp8_table.h"

namespace temper::kernels {
namespace {

using Lanes = __m512;
using Mask = __mmask16;

// 12 x 32 outputs: 24 accumulators, 2 weights of 32 registers.
constexpr int kMaxTileRows = 12;
constexpr int kTilePanels = 2;
// Up to so many rows stream through the weights, with so many blocks side by side.
constexpr int kMaxStreamRows = 4;
constexpr int StreamBlocksOf(int) { return 4; }

#define TEMPER_LANES [[gnu::always_inline]] inline

TEMPER_LANES Lanes Zero() { return _mm512_setzero_ps(); }
TEMPER_LANES Lanes Broadcast(float x) { return _mm512_set1_ps(x); }
TEMPER_LANES Lanes Load(const float* p) { return _mm512_loadu_ps(p); }
/// Sixteen BF16 numbers: the upper halves of floats.
TEMPER_LANES Lanes Load(const std::uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
/// Sixteen E4M3 codes as half floats of the same fields: value times 2^-8, exact.
TEMPER_LANES Lanes Load(const std::uint8_t* p) {
  const __m128i code = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtph_ps(_mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(code), 7),
                                          _mm256_set1_epi16(static_cast<short>(0xBF80))));
}
TEMPER_LANES void Store(float* p, Lanes a) { _mm512_storeu_ps(p, a); }

#ifdef __AVX512VBMI__
/// A line of four inputs' E4M3 codes: two look-ups in tables of 128 bytes give the BF16 numbers of
/// all 64, then one shuffle each spreads an input's halves over its sixteen floats.
struct Fp8Line {
  TEMPER_LANES explicit Fp8Line(const std::uint8_t* p) {
    const auto table = [](const unsigned char* t) { return _mm512_load_si512(t); };
    const __m512i code = _mm512_loadu_si512(p);
    low = _mm512_permutex2var_epi8(table(kShiftedE4m3Bytes.low), code,
                                   table(kShiftedE4m3Bytes.low + 64));
    const __m512i size = _mm512_permutex2var_epi8(table(kShiftedE4m3Bytes.high), code,
                                                  table(kShiftedE4m3Bytes.high + 64));
    // size | (code & 0x80)
    high = _mm512_ternarylogic_epi64(size, code, _mm512_set1_epi8(static_cast<char>(0x80)), 0xF8);
  }
  TEMPER_LANES Lanes At(int i) const {
    // Byte 2 of float l is entry 16 i + l of the low halves, byte 3 that of the high ones.
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i entry = _mm512_add_epi32(lane, _mm512_set1_epi32(16 * i));
    const __m512i index =
        _mm512_or_si512(_mm512_slli_epi32(entry, 16),
                        _mm512_slli_epi32(_mm512_add_epi32(entry, _mm512_set1_epi32(64)), 24));
    return _mm512_castsi512_ps(
        _mm512_maskz_permutex2var_epi8(0xCCCCCCCCCCCCCCCCull, low, index, high));
  }
  __m512i low, high;
};
#define TEMPER_FP8_LINE Fp8Line
#endif
TEMPER_LANES Lanes Add(Lanes a, Lanes b) { return _mm512_add_ps(a, b); }
TEMPER_LANES Lanes Sub(Lanes a, Lanes b) { return _mm512_sub_ps(a, b); }
TEMPER_LANES Lanes Mul(Lanes a, Lanes b) { return _mm512_mul_ps(a, b); }
TEMPER_LANES Lanes Div(Lanes a, Lanes b) { return _mm512_div_ps(a, b); }
TEMPER_LANES Lanes Max(Lanes a, Lanes b) { return _mm512_max_ps(a, b); }
TEMPER_LANES Lanes Fma(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }
TEMPER_LANES Lanes Negate(Lanes a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }

/// The first n lanes; n may be anything.
TEMPER_LANES Mask FirstLanes(int n) {
  return n >= 16 ? Mask{0xFFFF} : static_cast<Mask>((1u << (n < 0 ? 0 : n)) - 1);
}
/// Lanes outside the mask are 0 and their memory is not touched.
TEMPER_LANES Lanes Load(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }
TEMPER_LANES void Store(float* p, Lanes a, Mask m) { _mm512_mask_storeu_ps(p, m, a); }
TEMPER_LANES Lanes Select(Mask m, Lanes a, Lanes b) { return _mm512_mask_blend_ps(m, b, a); }

TEMPER_LANES float TreeSum(Lanes a) {
  const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
TEMPER_LANES float TreeMax(Lanes a) {
  const __m256 s8 = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
}

// The operations of Exp() in math.cc, lane by lane.
TEMPER_LANES Lanes Exp(Lanes x) {
  const __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(kExpLog2E), _mm512_set1_ps(kExpMagic));
  const __m512 n = _mm512_sub_ps(t, _mm512_set1_ps(kExpMagic));
  __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-kExpLn2High), x);
  r = _mm512_fmadd_ps(n, _mm512_set1_ps(-kExpLn2Low), r);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(kExpC6), r, _mm512_set1_ps(kExpC5));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kExpC4));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kExpC3));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kExpC2));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  const __m512i bits =
      _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23));
  const __mmask16 not_low = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExpLow), _CMP_NLT_UQ);
  const __mmask16 beyond = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExpHigh), _CMP_NLE_UQ);
  const __m512 y = _mm512_castsi512_ps(_mm512_maskz_mov_epi32(not_low, bits));
  return _mm512_mask_add_ps(y, beyond, x, _mm512_set1_ps(__builtin_inff()));
}

/// Rotates pairs: t holds cos, sin interleaved. Even lanes fma(a, cos, -(b sin)), odd fma(b, cos, a
/// sin).
TEMPER_LANES Lanes Rotate(Lanes x, Lanes t) {
  const __m512 swapped = _mm512_permute_ps(x, 0xB1);
  const __m512 product = _mm512_mul_ps(swapped, _mm512_movehdup_ps(t));
  return _mm512_fmaddsub_ps(x, _mm512_moveldup_ps(t), product);
}

}  // namespace
}  // namespace temper::kernels
