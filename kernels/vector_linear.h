#pragma once
// Linear layers over Lanes: register tiles of rows x panels. Included after a lanes_*.h, by that
// variant's .cc alone.
#include <algorithm>
#include <cstdint>

#include "kernels/linear.h"
#include "kernels/variant.h"

namespace temper::kernels {
namespace {

/// R rows times P panels, all of K: y[r * ldy + 16 p + lane]. `stride` floats from panel to panel.
template <int R, int P>
void LinearTile(const float* w, std::int64_t stride, int k, const float* x, std::int64_t ldx,
                float* y, std::int64_t ldy) {
  for (int k0 = 0; k0 < k; k0 += kBlock) {
    Lanes sum[R][P];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) sum[r][p] = Zero();
    }
    const int end = std::min(k0 + kBlock, k);
#pragma GCC unroll 2
    for (int j = k0; j < end; ++j) {
      Lanes weight[P];
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) weight[p] = Load(w + p * stride + j * kPanel);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Lanes input = Broadcast(x[r * ldx + j]);
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) sum[r][p] = Fma(weight[p], input, sum[r][p]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) {
        float* out = y + r * ldy + p * kPanel;
        // 0 + sum is not sum: it turns -0 into +0.
        Store(out, Add(k0 == 0 ? Zero() : Load(out), sum[r][p]));
      }
    }
  }
}

using TileFunction = void (*)(const float*, std::int64_t, int, const float*, std::int64_t, float*,
                              std::int64_t);

/// Rows [0, m) of one group of P panels (or the tail panel with `outputs` < 16 columns).
template <int P>
void LinearPanels(const LinearBlock& b, const TileFunction* tile, int max_rows, int panel) {
  const std::int64_t stride = static_cast<std::int64_t>(b.k) * kPanel;
  const float* w = b.w + panel * stride;
  const int outputs = std::min(b.n - panel * kPanel, P * kPanel);
  const int tiles = (b.m + max_rows - 1) / max_rows;
  // Rows are spread evenly: 7 rows are 4 + 3, never 6 + 1, since a short tile is as slow as a full
  // one.
  for (int t = 0, row = 0; t < tiles; ++t) {
    const int rows = (b.m - row + tiles - t - 1) / (tiles - t);
    const float* x = b.x + row * b.ldx;
    float* y = b.y + row * b.ldy + panel * kPanel;
    if (outputs == P * kPanel) {
      tile[rows](w, stride, b.k, x, b.ldx, y, b.ldy);
    } else {
      alignas(64) float buffer[kMaxTileRows * P * kPanel];
      tile[rows](w, stride, b.k, x, b.ldx, buffer, P * kPanel);
      for (int r = 0; r < rows; ++r) {
        for (int p = 0; p * kPanel < outputs; ++p) {
          const Mask mask = FirstLanes(outputs - p * kPanel);
          Store(y + r * b.ldy + p * kPanel, Load(buffer + (r * P + p) * kPanel, mask), mask);
        }
      }
    }
    row += rows;
  }
}

}  // namespace
}  // namespace temper::kernels
