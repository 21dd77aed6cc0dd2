#pragma once
// Linear layers over Lanes: tiles of rows x panels. Included by avx2.cc and avx512.cc after their
// lanes.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/linear.h"
#include "kernels/variant.h"

namespace temper::kernels {
namespace {

/// P panels of one block of the sum.
template <typename Element>
struct BlockWeights {
  const Element* w;      // [P][depth][16], panels `stride` elements apart
  std::int64_t stride;   // elements
  const Element* ahead;  // what is read next, in the same shape: prefetched; or null
  int depth;             // inputs, at most kBlock
};

/// One block of the sum for R rows and P panels: a from 0, then y[r * ldy + 16 p + lane] =
/// fma(a, scale[r * P + p], y), with 0 for y in the first block.
template <typename Element, int R, int P, bool kAhead>
void LinearTile(const BlockWeights<Element>& b, const float* x, std::int64_t ldx,
                const float* scale, bool first, float* y, std::int64_t ldy) {
  constexpr int kLine = 64 / (kPanel * static_cast<int>(sizeof(Element)));  // inputs a cache line
  Lanes sum[R][P];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) sum[r][p] = Zero();
  }
  const auto step = [&](int j) __attribute__((always_inline)) {
    Lanes weight[P];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) weight[p] = Load(b.w + p * b.stride + j * kPanel);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Lanes input = Broadcast(x[r * ldx + j]);
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) sum[r][p] = Fma(weight[p], input, sum[r][p]);
    }
  };
  int j = 0;
  if constexpr (kAhead) {
    for (; j + kLine <= b.depth; j += kLine) {
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) {
        _mm_prefetch(reinterpret_cast<const char*>(b.ahead + p * b.stride + j * kPanel),
                     _MM_HINT_T0);
      }
#pragma GCC unroll 4
      for (int i = 0; i < kLine; ++i) step(j + i);
    }
  }
#pragma GCC unroll 2
  for (; j < b.depth; ++j) step(j);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      float* out = y + r * ldy + p * kPanel;
      Store(out, Fma(sum[r][p], Broadcast(scale[r * P + p]), first ? Zero() : Load(out)));
    }
  }
}

template <typename Element>
using TileFunction = void (*)(const BlockWeights<Element>&, const float*, std::int64_t,
                              const float*, bool, float*, std::int64_t);

template <typename Element>
struct TileTable {
  TileFunction<Element> rows[kMaxTileRows + 1];
};

template <typename Element, int P, bool kAhead, int... R>
constexpr TileTable<Element> MakeTiles(std::integer_sequence<int, R...>) {
  return {{nullptr, LinearTile<Element, R + 1, P, kAhead>...}};
}

/// Tiles for 1 .. TileRows(P) rows.
template <typename Element, int P, bool kAhead>
constexpr TileTable<Element> kTiles =
    MakeTiles<Element, P, kAhead>(std::make_integer_sequence<int, TileRows(P)>{});

constexpr float kOnes[24] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                             1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/// The scales [rows][P] of block k0 for rows [row, row + rows): ones without scales.
template <int P>
TEMPER_LANES const float* Scales(const LinearBlock& b, int panel, int k0, int row, int rows,
                                 float* to) {
  static_assert(TileRows(P) * P <= 24);
  if (b.w.scale == nullptr) return kOnes;
  const std::int64_t blocks = (b.w.k + kBlock - 1) / kBlock, block = k0 / kBlock;
  for (int p = 0; p < P; ++p) {
    const float s = b.w.scale[(panel + p) / (kBlock / kPanel) * blocks + block];
    for (int r = 0; r < rows; ++r) {
      to[r * P + p] = b.x_scale == nullptr ? s : b.x_scale[(row + r) * b.ld_x_scale + block] * s;
    }
  }
  return to;
}

/// Inputs [k0, k0 + depth) of all rows of the block, for P panels; the last may have fewer than 16
/// outputs.
template <typename Element, int P, bool kAhead>
void LinearPanels(const LinearBlock& b, const BlockWeights<Element>& w, int panel, int k0) {
  const int outputs = std::min(b.w.n - panel * kPanel, P * kPanel);
  const int tiles = (b.m + TileRows(P) - 1) / TileRows(P);
  // Rows are spread evenly: 7 rows are 4 + 3, never 6 + 1, since a short tile is as slow as a full
  // one.
  for (int t = 0, row = 0; t < tiles; ++t) {
    const int rows = (b.m - row + tiles - t - 1) / (tiles - t);
    const TileFunction<Element> tile = kTiles<Element, P, kAhead>.rows[rows];
    const float* x = b.x + row * b.ldx + k0;
    float* y = b.y + row * b.ldy + panel * kPanel;
    float space[TileRows(P) * P];
    const float* scale = Scales<P>(b, panel, k0, row, rows, space);
    if (outputs == P * kPanel) {
      tile(w, x, b.ldx, scale, k0 == 0, y, b.ldy);
    } else {
      alignas(64) float buffer[TileRows(P) * P * kPanel];
      for (int r = 0; r < rows && k0 > 0; ++r)
        std::copy_n(y + r * b.ldy, outputs, buffer + r * P * kPanel);
      tile(w, x, b.ldx, scale, k0 == 0, buffer, P * kPanel);
      for (int r = 0; r < rows; ++r) std::copy_n(buffer + r * P * kPanel, outputs, y + r * b.ldy);
    }
    row += rows;
  }
}

/// Decodes P panels of one block into floats once for all tiles of rows.
template <typename Element, int P, bool kAhead>
void LinearStrip(const LinearBlock& b, const BlockWeights<Element>& w, int panel, int k0) {
  constexpr int kLine = 64 / (kPanel * static_cast<int>(sizeof(Element)));
  alignas(64) float strip[P * kBlock * kPanel];
  for (int p = 0; p < P; ++p) {
    const Element* from = w.w + p * w.stride;
    float* to = strip + p * kBlock * kPanel;
    for (int j = 0; j < w.depth; j += kLine) {
      if (kAhead) {
        _mm_prefetch(reinterpret_cast<const char*>(w.ahead + p * w.stride + j * kPanel),
                     _MM_HINT_T0);
      }
      const int end = std::min(j + kLine, w.depth);
      for (int i = j; i < end; ++i) Store(to + i * kPanel, Load(from + i * kPanel));
    }
  }
  LinearPanels<float, P, false>(b, {strip, kBlock * kPanel, nullptr, w.depth}, panel, k0);
}

/// Rows that read the weights once, in the order of memory. Beyond, a slice of x stays in the cache
/// for all panels and a slice of a panel for all rows.
constexpr int kStreamRows = 16;

/// P panels from `panel` on, inputs from k0 on. kStream: the whole depth, reading ahead.
template <typename Element, int P, bool kStream>
void LinearGroup(const LinearBlock& b, int panel, int k0) {
  const std::int64_t stride = static_cast<std::int64_t>(b.w.k) * kPanel;
  const Element* w = static_cast<const Element*>(b.w.data) + panel * stride;
  const auto block = [&](int k, const Element* ahead) {
    const BlockWeights<Element> some{w + k * kPanel, stride, ahead, std::min(kBlock, b.w.k - k)};
    if constexpr (sizeof(Element) == sizeof(float) || P == 4) {
      LinearPanels<Element, P, kStream>(b, some, panel, k);
    } else if (kStream && b.m <= kDirectRows) {
      LinearPanels<Element, P, kStream>(b, some, panel, k);
    } else {
      LinearStrip<Element, P, kStream>(b, some, panel, k);
    }
  };
  if (!kStream) return block(k0, nullptr);
  for (int k = 0; k < b.w.k; k += kBlock) {
    // The next block of these panels, or the first one of the next panels.
    const bool more = k + kBlock < b.w.k, last = panel + P >= b.panel_end;
    block(k, w + (more ? (k + kBlock) * kPanel : last ? 0 : P * stride));
  }
}

template <typename Element, bool kStream>
void LinearGroups(const LinearBlock& b, int k0) {
  const int most = TilePanels(b.m);
  for (int panel = b.panel; panel < b.panel_end;) {
    const int left = b.panel_end - panel;
    if (most == 4 && left >= 4) {
      LinearGroup<Element, 4, kStream>(b, panel, k0);
      panel += 4;
    } else if (most >= 2 && left >= 2) {
      LinearGroup<Element, 2, kStream>(b, panel, k0);
      panel += 2;
    } else {
      LinearGroup<Element, 1, kStream>(b, panel, k0);
      panel += 1;
    }
  }
}

template <typename Element>
void LinearOf(const LinearBlock& b) {
  if (b.m <= kStreamRows) return LinearGroups<Element, true>(b, 0);
  for (int k0 = 0; k0 < b.w.k; k0 += kBlock) LinearGroups<Element, false>(b, k0);
}

void VectorLinear(const LinearBlock& b) {
  switch (b.w.type) {
    case WeightType::kF32:
      return LinearOf<float>(b);
    case WeightType::kBf16:
      return LinearOf<std::uint16_t>(b);
    case WeightType::kFp8:
      return LinearOf<std::uint8_t>(b);
  }
}

}  // namespace
}  // namespace temper::kernels
