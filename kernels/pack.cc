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
  for (int i0 = 0; i0 < n; i0 += kPanel) {
    const int count = std::min(kPanel, n - i0);
    for (int j = 0; j < k; ++j, out += kPanel) {
      std::copy_n(w + j * ldw + i0, count, out);
      std::fill(out + count, out + kPanel, T{0});
    }
  }
}

/// Interleaves the lower or upper halves of two registers, an element of T at a time.
template <typename T>
__m128i Low(__m128i a, __m128i b) {
  if constexpr (sizeof(T) == 1) return _mm_unpacklo_epi8(a, b);
  if constexpr (sizeof(T) == 2) return _mm_unpacklo_epi16(a, b);
  if constexpr (sizeof(T) == 4) return _mm_unpacklo_epi32(a, b);
}
template <typename T>
__m128i High(__m128i a, __m128i b) {
  if constexpr (sizeof(T) == 1) return _mm_unpackhi_epi8(a, b);
  if constexpr (sizeof(T) == 2) return _mm_unpackhi_epi16(a, b);
  if constexpr (sizeof(T) == 4) return _mm_unpackhi_epi32(a, b);
}

/// A square of rows of 16 bytes at from + i * ld becomes its columns at to + kPanel * i.
template <typename T>
void Transpose(const T* from, std::int64_t ld, T* to) {
  constexpr int kSide = 16 / sizeof(T);
  __m128i a[kSide], b[kSide];
#pragma GCC unroll 16
  for (int i = 0; i < kSide; ++i)
    a[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * ld));
  // Row i beside row i + side / 2. Each pass moves one bit of the row's number into the column's.
  for (int pass = 1; pass < kSide; pass *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < kSide / 2; ++i) {
      b[2 * i] = Low<T>(a[i], a[i + kSide / 2]);
      b[2 * i + 1] = High<T>(a[i], a[i + kSide / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kSide; ++i) a[i] = b[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < kSide; ++i)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + kPanel * i), a[i]);
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

/// Loading a model is this: whole panels go in squares of 16 bytes.
template <typename T>
void PackPanels(const T* w, std::int64_t ldw, int rows, int k, int first, T* out) {
  constexpr int kSide = 16 / sizeof(T);
  const int whole = k / kSide * kSide;
  int i = 0;
  const auto some = [&](int count) {
    PackSome(w + i * ldw, ldw, count, k, first + i, out), i += count;
  };
  some(std::min(rows, (kPanel - first % kPanel) % kPanel));
  for (; i + kPanel <= rows; i += kPanel) {
    T* to = out + std::int64_t{first + i} * k;
    for (int j = 0; j < whole; j += kSide) {
      for (int r = 0; r < kPanel; r += kSide)
        Transpose(w + (i + r) * ldw + j, ldw, to + j * kPanel + r);
    }
    for (int j = whole; j < k; ++j) {
      for (int r = 0; r < kPanel; ++r) to[j * kPanel + r] = w[(i + r) * ldw + j];
    }
  }
  some(rows - i);
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
  PackPanels(w, ldw, rows, k, first, out);
}
void PackRows(const std::uint16_t* w, std::int64_t ldw, int rows, int k, int first,
              std::uint16_t* out) {
  PackPanels(w, ldw, rows, k, first, out);
}
void PackRows(const std::uint8_t* w, std::int64_t ldw, int rows, int k, int first,
              std::uint8_t* out) {
  PackPanels(w, ldw, rows, k, first, out);
}

}  // namespace temper::kernels
