#pragma once
// Rows of inputs side by side, so that a tile reads one stream. Included as vector_linear.h is.
#include <immintrin.h>

#include <cstdint>

namespace temper::kernels {
namespace {

TEMPER_LANES void TransposeFour(const float* x, std::int64_t ldx, float* out, int rows) {
  __m128 a = _mm_loadu_ps(x), b = _mm_loadu_ps(x + ldx), c = _mm_loadu_ps(x + 2 * ldx),
         d = _mm_loadu_ps(x + 3 * ldx);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(out, a);
  _mm_storeu_ps(out + rows, b);
  _mm_storeu_ps(out + 2 * rows, c);
  _mm_storeu_ps(out + 3 * rows, d);
}

/// out[j * rows + r] = x[r * ldx + j] for r < rows, j < depth.
void PackRowsAcross(const float* x, std::int64_t ldx, int rows, int depth, float* out) {
  const int whole = rows >= 4 ? depth / 4 * 4 : 0;
  for (int r0 = 0; whole > 0; r0 += 4) {
    // The last four overlap others: the same numbers are stored twice.
    const int r = r0 + 4 <= rows ? r0 : rows - 4;
    for (int j = 0; j < whole; j += 4)
      TransposeFour(x + r * ldx + j, ldx, out + j * rows + r, rows);
    if (r + 4 >= rows) break;
  }
  for (int r = 0; r < rows; ++r) {
    for (int j = whole; j < depth; ++j) out[j * rows + r] = x[r * ldx + j];
  }
}

}  // namespace
}  // namespace temper::kernels
