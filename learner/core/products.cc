#include "learner/core/products.h"

#include <immintrin.h>

#include <algorithm>
#include <vector>

#include "engine/weights.h"
#include "kernels/cpu.h"
#include "kernels/linear.h"

namespace temper::learner {

namespace {

constexpr std::int64_t kRows = 256;      // of a block of the sum
constexpr int kTileN = 12, kTileK = 32;  // of one register tile in AVX-512; AVX2 takes it in four
constexpr int kTaskN = 4 * kTileN, kTaskK = 2 * kTileK;

using Tile = float[kTileN * kTileK];
/// out [12, 32] = sum over t < rows of g[t, 0..12) x[t, 0..32).
using TileFunction = void (*)(const float* g, std::int64_t ldg, const float* x, std::int64_t ldx,
                              std::int64_t rows, float* out);

__attribute__((target("avx512f"))) void TileAvx512(const float* g, std::int64_t ldg, const float* x,
                                                   std::int64_t ldx, std::int64_t rows,
                                                   float* out) {
  __m512 a[kTileN][2];
#pragma GCC unroll 12
  for (int i = 0; i < kTileN; ++i) a[i][0] = a[i][1] = _mm512_setzero_ps();
  for (std::int64_t t = 0; t < rows; ++t) {
    const __m512 x0 = _mm512_loadu_ps(x + t * ldx), x1 = _mm512_loadu_ps(x + t * ldx + 16);
    const float* gt = g + t * ldg;
#pragma GCC unroll 12
    for (int i = 0; i < kTileN; ++i) {
      const __m512 w = _mm512_set1_ps(gt[i]);
      a[i][0] = _mm512_fmadd_ps(w, x0, a[i][0]);
      a[i][1] = _mm512_fmadd_ps(w, x1, a[i][1]);
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < kTileN; ++i) {
    _mm512_storeu_ps(out + i * kTileK, a[i][0]);
    _mm512_storeu_ps(out + i * kTileK + 16, a[i][1]);
  }
}

__attribute__((target("avx2,fma"))) void QuarterAvx2(const float* g, std::int64_t ldg,
                                                     const float* x, std::int64_t ldx,
                                                     std::int64_t rows, float* out) {
  __m256 a[6][2];
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) a[i][0] = a[i][1] = _mm256_setzero_ps();
  for (std::int64_t t = 0; t < rows; ++t) {
    const __m256 x0 = _mm256_loadu_ps(x + t * ldx), x1 = _mm256_loadu_ps(x + t * ldx + 8);
    const float* gt = g + t * ldg;
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
      const __m256 w = _mm256_set1_ps(gt[i]);
      a[i][0] = _mm256_fmadd_ps(w, x0, a[i][0]);
      a[i][1] = _mm256_fmadd_ps(w, x1, a[i][1]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) {
    _mm256_storeu_ps(out + i * kTileK, a[i][0]);
    _mm256_storeu_ps(out + i * kTileK + 8, a[i][1]);
  }
}

void TileAvx2(const float* g, std::int64_t ldg, const float* x, std::int64_t ldx, std::int64_t rows,
              float* out) {
  for (int i = 0; i < kTileN; i += 6) {
    for (int j = 0; j < kTileK; j += 16)
      QuarterAvx2(g + i, ldg, x + j, ldx, rows, out + i * kTileK + j);
  }
}

/// Rows of at most `width` floats, padded with zeros.
void CopyPadded(const float* from, std::int64_t ld, std::int64_t rows, int width, int padded,
                float* to) {
  for (std::int64_t t = 0; t < rows; ++t) {
    std::copy_n(from + t * ld, width, to + t * padded);
    std::fill_n(to + t * padded + width, padded - width, 0.0f);
  }
}

/// One task: outputs [n0, n0 + 48) x [k0, k0 + 64) of a layer.
void Accumulate(const LinearBackward& layer, int n0, int k0, TileFunction tile) {
  const int n1 = std::min(n0 + kTaskN, layer.n), k1 = std::min(k0 + kTaskK, layer.k);
  for (int n = n0; n < n1; ++n)
    std::fill(layer.dw + std::int64_t(n) * layer.k + k0, layer.dw + std::int64_t(n) * layer.k + k1,
              0.0f);
  alignas(64) Tile sum;
  alignas(64) float g_edge[kRows * kTileN], x_edge[kRows * kTileK];
  for (std::int64_t t = 0; t < layer.m; t += kRows) {
    const std::int64_t rows = std::min(kRows, layer.m - t);
    for (int k = k0; k < k1; k += kTileK) {
      const float* x = layer.x + t * layer.ldx + k;
      std::int64_t ldx = layer.ldx;
      const int width = std::min(kTileK, k1 - k);
      if (width < kTileK) {
        CopyPadded(x, ldx, rows, width, kTileK, x_edge);
        x = x_edge;
        ldx = kTileK;
      }
      for (int n = n0; n < n1; n += kTileN) {
        const float* g = layer.g + t * layer.ldg + n;
        std::int64_t ldg = layer.ldg;
        const int height = std::min(kTileN, n1 - n);
        if (height < kTileN) {
          CopyPadded(g, ldg, rows, height, kTileN, g_edge);
          g = g_edge;
          ldg = kTileN;
        }
        tile(g, ldg, x, ldx, rows, sum);
        for (int i = 0; i < height; ++i) {
          float* to = layer.dw + std::int64_t(n + i) * layer.k + k;
          for (int j = 0; j < width; ++j) to[j] += sum[i * kTileK + j];
        }
      }
    }
  }
}

}  // namespace

void WeightGradients(std::span<const LinearBackward> layers, kernels::ThreadPool& pool) {
  struct Task {
    const LinearBackward* layer;
    int n, k;
  };
  std::vector<Task> tasks;
  for (const LinearBackward& layer : layers) {
    for (int n = 0; n < layer.n; n += kTaskN) {
      for (int k = 0; k < layer.k; k += kTaskK) tasks.push_back({&layer, n, k});
    }
  }
  const TileFunction tile = kernels::ActiveIsa() == kernels::Isa::kAvx512 ? TileAvx512 : TileAvx2;
  pool.Run(int(tasks.size()),
           [&](int i) { Accumulate(*tasks[i].layer, tasks[i].n, tasks[i].k, tile); });
}

void InputGradients(std::span<const LinearBackward> layers, kernels::ThreadPool& pool) {
  std::vector<engine::AlignedFloats> packed(layers.size());
  std::vector<kernels::LinearItem> items(layers.size());
  pool.Run(int(layers.size()), [&](int i) {
    const LinearBackward& layer = layers[i];
    packed[i] = engine::AlignedFloats(kernels::PackedSize(layer.k, layer.n));
    kernels::PackLinearTransposed(layer.w, layer.k, layer.k, layer.n, packed[i].data());
    items[i] = {{packed[i].data(), layer.k, layer.n},
                layer.g,
                layer.ldg,
                int(layer.m),
                layer.dx,
                layer.lddx};
  });
  kernels::LinearMany(items.data(), int(items.size()), pool);
}

}  // namespace temper::learner
