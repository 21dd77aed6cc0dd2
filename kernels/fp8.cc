#include "kernels/fp8.h"

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "kernels/fp8_table.h"
#include "kernels/linear.h"
#include "kernels/parts.h"

namespace temper::kernels {
namespace {

constexpr std::uint32_t kSign = 0x80000000u;
constexpr std::uint32_t kInfinity = 0x7F800000u;
constexpr float kSmallestNormal = 0x1p-6f;

constexpr float Shifted(unsigned code) {
  const unsigned exponent = (code >> 3) & 15, mantissa = code & 7;
  const float size =
      exponent == 0 ? static_cast<float>(mantissa) * 0x1p-17f
                    : std::bit_cast<float>(((exponent + 127 - 7 - 8) << 23) | (mantissa << 20));
  return (code & 0x80) != 0 ? -size : size;
}

/// Eight E4M3 values nearest to clamp(x), ties to even; NaN stays NaN.
inline __m256 RoundEight(__m256 x) {
  const __m256 minus = _mm256_set1_ps(-0.0f);
  // The second operand where one is NaN.
  x = _mm256_min_ps(_mm256_set1_ps(kE4m3Max), x);
  x = _mm256_max_ps(_mm256_set1_ps(-kE4m3Max), x);
  const __m256 sign = _mm256_and_ps(x, minus), size = _mm256_andnot_ps(minus, x);
  // Normal numbers: rounding bit 20 of the mantissa, a carry moves into the exponent.
  const __m256i bits = _mm256_castps_si256(size);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 20), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFFF)), odd);
  const __m256 normal =
      _mm256_castsi256_ps(_mm256_and_si256(up, _mm256_set1_epi32(static_cast<int>(0xFFF00000u))));
  // Below 2^-6 the codes are 2^-9 apart, as floats near 1.5 * 2^14 are: adding that rounds.
  const __m256 magic = _mm256_set1_ps(24576.0f);
  const __m256 small = _mm256_sub_ps(_mm256_add_ps(size, magic), magic);
  __m256 y = _mm256_blendv_ps(normal, small,
                              _mm256_cmp_ps(size, _mm256_set1_ps(kSmallestNormal), _CMP_LT_OQ));
  y = _mm256_blendv_ps(y, size, _mm256_cmp_ps(size, size, _CMP_UNORD_Q));
  return _mm256_or_ps(y, sign);
}

/// The codes of eight E4M3 values (or NaN), one a byte of the result.
inline __m128i CodesOfEight(__m256 value) {
  const __m256 minus = _mm256_set1_ps(-0.0f);
  const __m256 size = _mm256_andnot_ps(minus, value);
  const __m256i sign = _mm256_srli_epi32(_mm256_castps_si256(_mm256_and_ps(value, minus)), 24);
  const __m256i normal = _mm256_sub_epi32(_mm256_srli_epi32(_mm256_castps_si256(size), 20),
                                          _mm256_set1_epi32((127 - 7) << 3));
  const __m256i small = _mm256_cvttps_epi32(_mm256_mul_ps(size, _mm256_set1_ps(512.0f)));
  const __m256 below = _mm256_cmp_ps(size, _mm256_set1_ps(kSmallestNormal), _CMP_LT_OQ);
  __m256i code =
      _mm256_or_si256(_mm256_blendv_epi8(normal, small, _mm256_castps_si256(below)), sign);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(size, size, _CMP_UNORD_Q));
  code = _mm256_blendv_epi8(code, _mm256_set1_epi32(0x7F), nan);
  const __m128i words =
      _mm_packus_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
  return _mm_packus_epi16(words, words);
}

/// Calls body(i, eight of x) for each eight entries, the last ones from a padded copy.
template <typename Body>
void ForEights(const float* x, std::int64_t n, const Body& body) {
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) body(i, _mm256_loadu_ps(x + i), 8);
  if (i == n) return;
  float rest[8] = {};
  std::copy(x + i, x + n, rest);
  body(i, _mm256_loadu_ps(rest), static_cast<int>(n - i));
}

int Blocks(int n) { return (n + kBlock - 1) / kBlock; }

}  // namespace

constexpr E4m3Table kShiftedE4m3 = [] {
  E4m3Table table{};
  for (unsigned code = 0; code < 256; ++code) table.value[code] = Shifted(code);
  return table;
}();

constexpr E4m3Bytes kShiftedE4m3Bytes = [] {
  E4m3Bytes bytes{};
  for (unsigned code = 0; code < 128; ++code) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(Shifted(code));
    bytes.low[code] = static_cast<unsigned char>(bits >> 16);
    bytes.high[code] = static_cast<unsigned char>(bits >> 24);
  }
  return bytes;
}();

float DecodeE4m3(std::uint8_t code) {
  if ((code & 0x7F) == 0x7F) return std::numeric_limits<float>::quiet_NaN();
  return kShiftedE4m3.value[code] * kFp8Shift;
}

std::uint8_t EncodeE4m3(float x) {
  const __m128i codes = CodesOfEight(RoundEight(_mm256_set1_ps(x)));
  return static_cast<std::uint8_t>(_mm_cvtsi128_si32(codes));
}

float LargestMagnitude(const float* x, std::int64_t n, float most) {
  // As integers: a NaN is larger than everything.
  std::uint32_t bits = std::bit_cast<std::uint32_t>(most);
  for (std::int64_t i = 0; i < n; ++i)
    bits = std::max(bits, std::bit_cast<std::uint32_t>(x[i]) & ~kSign);
  return std::bit_cast<float>(bits);
}

void RoundToE4m3(const float* x, std::int64_t n, float s, float* values) {
  const __m256 scale = _mm256_set1_ps(s);
  ForEights(x, n, [&](std::int64_t i, __m256 eight, int count) {
    const __m256 y = RoundEight(_mm256_div_ps(eight, scale));
    if (count == 8) return _mm256_storeu_ps(values + i, y);
    float rest[8];
    _mm256_storeu_ps(rest, y);
    std::copy_n(rest, count, values + i);
  });
}

void EncodeE4m3(const float* x, std::int64_t n, float s, std::uint8_t* codes) {
  const __m256 scale = _mm256_set1_ps(s);
  ForEights(x, n, [&](std::int64_t i, __m256 eight, int count) {
    const __m128i code = CodesOfEight(RoundEight(_mm256_div_ps(eight, scale)));
    std::memcpy(codes + i, &code, static_cast<std::size_t>(count));
  });
}

float BlockScale(float amax, ScaleRecipe recipe) {
  const float floored = amax < 1e-12f ? 1e-12f : amax;
  const float quotient = floored / kE4m3Max;
  if (recipe == ScaleRecipe::kFp32) return quotient;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(quotient);
  if (bits >= kInfinity) return quotient;
  return std::bit_cast<float>((bits + 0x7FFFFFu) & kInfinity);
}

void QuantizeActivations(const float* x, std::int64_t ldx, int m, int k, ScaleRecipe recipe,
                         float* values, std::int64_t ldv, float* scales, ThreadPool& pool) {
  const int blocks = Blocks(k);
  ForPieces(pool, m, std::int64_t{k} * 250, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t r = first; r < end; ++r) {
      for (int b = 0; b < blocks; ++b) {
        const int n = std::min(kBlock, k - b * kBlock);
        const float* from = x + r * ldx + b * kBlock;
        float* to = values + r * ldv + b * kBlock;
        const float s = BlockScale(LargestMagnitude(from, n, 0), recipe);
        scales[r * blocks + b] = s;
        RoundToE4m3(from, n, s, to);
      }
    }
  });
}

void QuantizeWeight(const float* w, std::int64_t ldw, int n, int k, ScaleRecipe recipe,
                    std::uint8_t* codes, std::int64_t ldc, float* scales, ThreadPool& pool) {
  const int blocks = Blocks(k);
  const auto block = [&](std::int64_t index) {
    const int i0 = static_cast<int>(index / blocks) * kBlock, j0 = index % blocks * kBlock;
    const int rows = std::min(kBlock, n - i0), columns = std::min(kBlock, k - j0);
    float most = 0;
    for (int i = i0; i < i0 + rows; ++i) most = LargestMagnitude(w + i * ldw + j0, columns, most);
    const float s = BlockScale(most, recipe);
    scales[index] = s;
    for (int i = i0; i < i0 + rows; ++i) {
      EncodeE4m3(w + i * ldw + j0, columns, s, codes + i * ldc + j0);
    }
  };
  ForPieces(pool, std::int64_t{Blocks(n)} * blocks, std::int64_t{kBlock} * kBlock * 300,
            [&](std::int64_t first, std::int64_t end) {
              for (std::int64_t i = first; i < end; ++i) block(i);
            });
}

void DequantizeWeight(const std::uint8_t* codes, std::int64_t ldc, int n, int k,
                      const float* scales, float* out, std::int64_t ldo, ThreadPool& pool) {
  const int blocks = Blocks(k);
  ForPieces(pool, n, std::int64_t{k} * 700, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t i = first; i < end; ++i) {
      const float* scale = scales + i / kBlock * blocks;
      for (int j = 0; j < k; ++j) {
        out[i * ldo + j] = DecodeE4m3(codes[i * ldc + j]) * scale[j / kBlock];
      }
    }
  });
}

std::string CheckFp8Scales(const float* scales, int n, int k) {
  constexpr float kLargest = std::numeric_limits<float>::max() / kE4m3Max;
  const int blocks = Blocks(k);
  for (int b = 0; b < Blocks(n) * blocks; ++b) {
    if (scales[b] > 0.0f && scales[b] <= kLargest) continue;
    const std::string where = "scale [" + std::to_string(b / blocks) + ", " +
                              std::to_string(b % blocks) + "] is " + std::to_string(scales[b]);
    if (scales[b] > kLargest && scales[b] <= std::numeric_limits<float>::max()) {
      return where + "; 448 times it is no finite float";
    }
    return where + "; a scale is positive and finite";
  }
  return "";
}

std::int64_t FindNanCode(const std::uint8_t* codes, std::int64_t count) {
  const __m256i nan = _mm256_set1_epi8(0x7F);
  std::int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i));
    if (_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_and_si256(x, nan), nan)) != 0) break;
  }
  for (; i < count; ++i) {
    if ((codes[i] & 0x7F) == 0x7F) return i;
  }
  return -1;
}

std::string CheckFp8Weight(const std::uint8_t* codes, std::int64_t ldc, int n, int k,
                           const float* scales) {
  const std::string bad = CheckFp8Scales(scales, n, k);
  if (!bad.empty()) return bad;
  for (int i = 0; i < n; ++i) {
    const std::int64_t j = FindNanCode(codes + i * ldc, k);
    if (j >= 0) return NanCodeText(i, j);
  }
  return "";
}

std::string NanCodeText(std::int64_t row, std::int64_t column) {
  return "entry [" + std::to_string(row) + ", " + std::to_string(column) + "] is a NaN code";
}

}  // namespace temper::kernels
