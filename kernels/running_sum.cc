#include "kernels/running_sum.h"

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstdint>

namespace temper::kernels {
namespace {

constexpr std::int64_t kUnits = 1 << 24;  // of a float in its binade

/// Adds a whole chunk in units of the sum's last bit; false where that isn't exact.
bool AddChunk(const float* p, float& sum) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(sum), exponent = bits >> 23;
  // One over the unit 2^(exponent - 127 - 23).
  const __m256 scale = _mm256_set1_ps(std::bit_cast<float>((254u - (exponent - 23u)) << 23));
  const __m256 half = _mm256_set1_ps(0.5f), sign = _mm256_set1_ps(-0.0f);
  __m256 most = _mm256_setzero_ps(), tie = _mm256_setzero_ps();
  __m256i added = _mm256_setzero_si256();
  for (int i = 0; i < kRunChunk; i += 8) {
    const __m256 units = _mm256_mul_ps(_mm256_loadu_ps(p + i), scale);  // exact
    const __m256i whole = _mm256_cvtps_epi32(units);
    const __m256 rest = _mm256_sub_ps(units, _mm256_cvtepi32_ps(whole));
    tie = _mm256_or_ps(tie, _mm256_cmp_ps(_mm256_andnot_ps(sign, rest), half, _CMP_EQ_OQ));
    most = _mm256_max_ps(most, units);
    added = _mm256_add_epi32(added, whole);
  }
  const __m256 large = _mm256_cmp_ps(most, _mm256_set1_ps(static_cast<float>(kUnits)), _CMP_NLT_UQ);
  if (_mm256_movemask_ps(_mm256_or_ps(tie, large)) != 0) return false;
  alignas(32) std::int32_t lane[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lane), added);
  std::int64_t units = (bits & 0x7FFFFFu) | 0x800000u;
  for (std::int32_t l : lane) units += l;
  if (units >= kUnits) return false;
  sum = std::bit_cast<float>((exponent << 23) | (static_cast<std::uint32_t>(units) & 0x7FFFFFu));
  return true;
}

}  // namespace

float RunningSum(const float* p, int n, float* ends) {
  float sum = 0.0f;
  for (int i = 0; i < n; i += kRunChunk, ++ends) {
    const int count = std::min(kRunChunk, n - i);
    // Below, the scale would leave the range of floats.
    const bool normal = sum >= 0x1p-100f && sum <= 0x1p100f;
    if (count < kRunChunk || !normal || !AddChunk(p + i, sum)) {
      for (int j = i; j < i + count; ++j) sum = sum + p[j];
    }
    *ends = sum;
  }
  return sum;
}

}  // namespace temper::kernels
