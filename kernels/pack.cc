// Row-major matrices into panels of 16 outputs.
#include <immintrin.h>

#include <algorithm>
#include <stdexcept>

#include "kernels/linear.h"

namespace temper::kernels {
namespace {

template <typename T, typename Element>
void Pack(int n, int k, T* out, const Element& element) {
  for (int i0 = 0; i0 < n; i0 += kPanel) {
    for (int j = 0; j < k; ++j) {
      for (int i = i0; i < i0 + kPanel; ++i) *out++ = i < n ? element(i, j) : T{0};
    }
  }
}

template <typename T>
void PackPlain(const T* w, std::int64_t ldw, int n, int k, T* out) {
  Pack(n, k, out, [=](int i, int j) { return w[i * ldw + j]; });
}

template <typename T>
void PackTransposed(const T* w, std::int64_t ldw, int n, int k, T* out) {
  Pack(n, k, out, [=](int i, int j) { return w[j * ldw + i]; });
}

/// Sixteen rows of sixteen bytes at from + i * ld to sixteen columns at `to`.
void TransposeBytes(const std::uint8_t* from, std::int64_t ld, std::uint8_t* to) {
  __m128i a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i)
    a[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * ld));
  // Four times: row i beside row i + 8. Each pass moves one bit of the row's number into the
  // column's.
  for (int pass = 0; pass < 4; ++pass) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
      b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) a[i] = b[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 16 * i), a[i]);
}

template <typename T>
void PackSome(const T* w, std::int64_t ldw, int rows, int k, int first, T* out) {
  for (int i = 0; i < rows; ++i) {
    const int row = first + i;
    T* to = out + std::int64_t{row / kPanel} * k * kPanel + row % kPanel;
    const T* from = w + i * ldw;
    for (std::int64_t j = 0; j < k; ++j) to[j * kPanel] = from[j];
  }
}

}  // namespace

std::size_t ElementBytes(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return 4;
    case WeightType::kBf16:
      return 2;
    case WeightType::kFp8:
      return 1;
  }
  throw std::logic_error("ElementBytes: no such weight type");
}

std::size_t PackedSize(int n, int k) {
  if (n < 0 || k < 1) throw std::logic_error("PackedSize: a linear layer needs n >= 0 and k >= 1");
  return (static_cast<std::size_t>(n) + kPanel - 1) / kPanel * kPanel * static_cast<std::size_t>(k);
}

std::size_t PackedBytes(WeightType type, int n, int k) {
  return PackedSize(n, k) * ElementBytes(type);
}

void PackLinear(const float* w, std::int64_t ldw, int n, int k, float* out) {
  PackPlain(w, ldw, n, k, out);
}
void PackBf16(const std::uint16_t* w, std::int64_t ldw, int n, int k, std::uint16_t* out) {
  PackPlain(w, ldw, n, k, out);
}
void PackFp8(const std::uint8_t* w, std::int64_t ldw, int n, int k, std::uint8_t* out) {
  PackRows(w, ldw, n, k, 0, out);
  const int left = n % kPanel;
  if (left == 0) return;
  std::uint8_t* last = out + std::int64_t{n / kPanel} * k * kPanel;
  for (std::int64_t j = 0; j < k; ++j)
    std::fill(last + j * kPanel + left, last + (j + 1) * kPanel, 0);
}

void PackLinearTransposed(const float* w, std::int64_t ldw, int n, int k, float* out) {
  PackTransposed(w, ldw, n, k, out);
}
void PackBf16Transposed(const std::uint16_t* w, std::int64_t ldw, int n, int k,
                        std::uint16_t* out) {
  PackTransposed(w, ldw, n, k, out);
}
void PackFp8Transposed(const std::uint8_t* w, std::int64_t ldw, int n, int k, std::uint8_t* out) {
  PackTransposed(w, ldw, n, k, out);
}

void PackRows(const float* w, std::int64_t ldw, int rows, int k, int first, float* out) {
  PackSome(w, ldw, rows, k, first, out);
}
void PackRows(const std::uint16_t* w, std::int64_t ldw, int rows, int k, int first,
              std::uint16_t* out) {
  PackSome(w, ldw, rows, k, first, out);
}
void PackRows(const std::uint8_t* w, std::int64_t ldw, int rows, int k, int first,
              std::uint8_t* out) {
  // Large models come as FP8: whole panels sixteen bytes at a time.
  const int whole = k / kPanel * kPanel;
  int i = 0;
  const auto some = [&](int count) {
    PackSome(w + i * ldw, ldw, count, k, first + i, out), i += count;
  };
  some(std::min(rows, (kPanel - first % kPanel) % kPanel));
  for (; i + kPanel <= rows; i += kPanel) {
    std::uint8_t* to = out + std::int64_t{first + i} * k;
    for (int j = 0; j < whole; j += kPanel) TransposeBytes(w + i * ldw + j, ldw, to + j * kPanel);
    for (int j = whole; j < k; ++j) {
      for (int r = 0; r < kPanel; ++r) to[j * kPanel + r] = w[(i + r) * ldw + j];
    }
  }
  some(rows - i);
}

}  // namespace temper::kernels
