#pragma once
// Linear layers over Lanes: tiles of rows x panels. Included by avx2.cc and avx512.cc after their
// lanes.
#include <algorithm>
#include <cstdint>

#include "kernels/linear.h"
#include "kernels/variant.h"

namespace temper::kernels {
namespace {

/// One block of the sum, at most kBlock inputs, for R rows and P panels `stride` floats apart:
/// y[r * ldy + 16 p + lane] += a, or = 0 + a for the first block (0 + a is not a: it turns -0 into
/// +0).
template <int R, int P>
void LinearTile(const float* w, std::int64_t stride, int depth, const float* x, std::int64_t ldx,
                bool first, float* y, std::int64_t ldy) {
  Lanes sum[R][P];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) sum[r][p] = Zero();
  }
#pragma GCC unroll 2
  for (int j = 0; j < depth; ++j) {
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
      Store(out, Add(first ? Zero() : Load(out), sum[r][p]));
    }
  }
}

using TileFunction = void (*)(const float*, std::int64_t, int, const float*, std::int64_t, bool,
                              float*, std::int64_t);

/// Inputs [k0, k0 + 128) of all rows of the block, for P panels; the last may have fewer than 16
/// outputs.
template <int P>
void LinearPanels(const LinearBlock& b, const TileFunction* tile, int max_rows, int panel, int k0) {
  const std::int64_t stride = static_cast<std::int64_t>(b.k) * kPanel;
  const float* w = b.w + panel * stride + k0 * kPanel;
  const int depth = std::min(kBlock, b.k - k0);
  const int outputs = std::min(b.n - panel * kPanel, P * kPanel);
  const int tiles = (b.m + max_rows - 1) / max_rows;
  // Rows are spread evenly: 7 rows are 4 + 3, never 6 + 1, since a short tile is as slow as a full
  // one.
  for (int t = 0, row = 0; t < tiles; ++t) {
    const int rows = (b.m - row + tiles - t - 1) / (tiles - t);
    const float* x = b.x + row * b.ldx + k0;
    float* y = b.y + row * b.ldy + panel * kPanel;
    if (outputs == P * kPanel) {
      tile[rows](w, stride, depth, x, b.ldx, k0 == 0, y, b.ldy);
    } else {
      alignas(64) float buffer[kMaxTileRows * P * kPanel];
      for (int r = 0; r < rows && k0 > 0; ++r)
        std::copy_n(y + r * b.ldy, outputs, buffer + r * P * kPanel);
      tile[rows](w, stride, depth, x, b.ldx, k0 == 0, buffer, P * kPanel);
      for (int r = 0; r < rows; ++r) std::copy_n(buffer + r * P * kPanel, outputs, y + r * b.ldy);
    }
    row += rows;
  }
}

/// The block in some order of panels and inputs: `group(panel, k0)` does a few panels and returns
/// how many.
template <typename Group>
TEMPER_LANES void LinearOrder(const LinearBlock& b, const Group& group) {
  if (b.m <= kMaxTileRows) {
    // The weights are read once: in the order of memory.
    for (int panel = b.panel, done = 0; panel < b.panel_end; panel += done) {
      for (int k0 = 0; k0 < b.k; k0 += kBlock) done = group(panel, k0);
    }
    return;
  }
  // A slice of x stays in the cache for all panels, a slice of a panel for all rows.
  for (int k0 = 0; k0 < b.k; k0 += kBlock) {
    for (int panel = b.panel; panel < b.panel_end;) panel += group(panel, k0);
  }
}

}  // namespace
}  // namespace temper::kernels
