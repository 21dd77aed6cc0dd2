#pragma once
// Linear layers over Lanes: tiles of rows x panels. Included by avx2.cc and avx512.cc after their
// lanes.

#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/linear.h"
#include "kernels/parts.h"
#include "kernels/variant.h"
#include "kernels/vector_half.h"
#include "kernels/vector_stream.h"

namespace temper::kernels {
namespace {

/// One block of the sum for R rows and P panels: a from 0, then y[r * ldy + 16 p + lane] =
/// fma(a, scale[r * P + p], y), with 0 for y in the first block.
///   w  [P][depth][16], panels `stride` elements apart    x  [R][depth], rows ldx apart
/// kStream: w comes from memory and is read ahead. kNext: w is a decoded strip; of what is decoded
/// next, at `next`, so many cache lines are asked for every four inputs: memory works while the
/// tile multiplies.
template <typename Element, int R, int P, bool kStream, int kNext>
void LinearTile(const Element* w, std::int64_t stride, int depth, const float* x, std::int64_t ldx,
                const float* scale, bool first, float* y, std::int64_t ldy, const char* next) {
  Lanes sum[R][P];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) sum[r][p] = Zero();
  }
  constexpr int kLine = kLineInputs<Element>;
  const auto multiply = [&](const Lanes* weight, int j) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Lanes input = Broadcast(x[r * ldx + j]);
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) sum[r][p] = Fma(weight[p], input, sum[r][p]);
    }
  };
  int j = 0;
  if constexpr (kNext > 0) {
    for (; j + 4 <= depth; j += 4, next += kNext * 64) {
#pragma GCC unroll 2
      for (int i = 0; i < kNext; ++i) Prefetch(next + i * 64);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        Lanes weight[P];
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) weight[p] = Load(w + p * stride + (j + i) * kPanel);
        multiply(weight, j + i);
      }
    }
  }
#pragma GCC unroll 2
  for (int lines = (depth - j) / kLine; lines > 0; --lines, j += kLine) {
    Line<Element> line[P];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      const Element* at = w + p * stride + j * kPanel;
      if constexpr (kStream) Prefetch(at + kAhead<Element> * kPanel);
      line[p] = Line<Element>(at);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kLine; ++i) {
      Lanes weight[P];
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) weight[p] = line[p].At(i);
      multiply(weight, j + i);
    }
  }
  for (; j < depth; ++j) {
    Lanes weight[P];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) weight[p] = Load(w + p * stride + j * kPanel);
    multiply(weight, j);
  }
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
using TileFunction = void (*)(const Element*, std::int64_t, int, const float*, std::int64_t,
                              const float*, bool, float*, std::int64_t, const char*);

template <typename Element>
struct TileTable {
  TileFunction<Element> rows[kMaxTileRows + 1];
};

template <typename Element, int P, bool kStream, int kNext, int... R>
constexpr TileTable<Element> MakeTiles(std::integer_sequence<int, R...>) {
  return {{nullptr, LinearTile<Element, R + 1, P, kStream, kNext>...}};
}

/// Tiles for 1 .. TileRows(P) rows.
template <typename Element, int P, bool kStream, int kNext>
constexpr TileTable<Element> kTiles =
    MakeTiles<Element, P, kStream, kNext>(std::make_integer_sequence<int, TileRows(P)>{});

/// Rows are spread evenly over tiles: 7 rows are 4 + 3, never 6 + 1, since a short tile is as slow
/// as a full one.
struct RowTiles {
  RowTiles(int m, int most) : m(m), tiles((m + most - 1) / most) {}
  template <typename Body>
  TEMPER_LANES void ForEach(const Body& body) const {
    if (tiles == 1) return body(0, m);
    for (int t = 0, row = 0; t < tiles; ++t) {
      const int rows = (m - row + tiles - t - 1) / (tiles - t);
      body(row, rows);
      row += rows;
    }
  }
  int m, tiles;
};

constexpr float kOnes[24] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                             1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/// The scales [rows][P] of a block of inputs for rows [row, row + rows): ones without scales.
template <int P>
TEMPER_LANES const float* Scales(const LinearBlock& b, int panel, int block, int row, int rows,
                                 float* to) {
  static_assert(TileRows(P) * P <= 24);
  if (b.w.scale == nullptr) return kOnes;
  const std::int64_t blocks = (b.w.k + kBlock - 1) / kBlock;
  for (int p = 0; p < P; ++p) {
    const float s = b.w.scale[(panel + p) / (kBlock / kPanel) * blocks + block];
    for (int r = 0; r < rows; ++r) {
      to[r * P + p] = b.x_scale == nullptr ? s : b.x_scale[(row + r) * b.ld_x_scale + block] * s;
    }
  }
  return to;
}

/// P panels of one block for all rows of x [m][depth]; the last panel may have fewer than 16
/// outputs. kNext: the first tiles ask for a panel each of what comes next, next_stride bytes
/// apart.
template <typename Element, int P, bool kStream, int kNext = 0>
void LinearPanels(const LinearBlock& b, const Element* w, std::int64_t stride, const float* x,
                  std::int64_t ldx, int panel, int k0, const char* next = nullptr,
                  std::int64_t next_stride = 0) {
  const int outputs = std::min(b.w.n - panel * kPanel, P * kPanel);
  const int depth = std::min(kBlock, b.w.k - k0);
  int tile_number = 0;
  RowTiles(b.m, TileRows(P)).ForEach([&](int row, int rows) {
    const int t = tile_number++;
    const TileFunction<Element> tile = t < P ? kTiles<Element, P, kStream, kNext>.rows[rows]
                                             : kTiles<Element, P, kStream, 0>.rows[rows];
    const char* ahead = next + t * next_stride;
    const float* from = x + row * ldx;
    float* y = b.y + row * b.ldy + panel * kPanel;
    float space[TileRows(P) * P] = {};
    const float* scale = Scales<P>(b, panel, k0 / kBlock, row, rows, space);
    if (outputs == P * kPanel) {
      tile(w, stride, depth, from, ldx, scale, k0 == 0, y, b.ldy, ahead);
      return;
    }
    alignas(64) float buffer[TileRows(P) * P * kPanel];
    for (int r = 0; r < rows && k0 > 0; ++r)
      std::copy_n(y + r * b.ldy, outputs, buffer + r * P * kPanel);
    tile(w, stride, depth, from, ldx, scale, k0 == 0, buffer, P * kPanel, ahead);
    for (int r = 0; r < rows; ++r) std::copy_n(buffer + r * P * kPanel, outputs, y + r * b.ldy);
  });
}

/// Decodes P panels of one block into floats.
template <typename Element, int P>
TEMPER_LANES void DecodeStrip(const Element* w, std::int64_t stride, int depth, float* strip) {
  constexpr int kLine = kLineInputs<Element>;
  for (int p = 0; p < P; ++p) {
    const Element* from = w + p * stride;
    float* to = strip + p * kBlock * kPanel;
    for (int lines = depth / kLine; lines > 0; --lines) {
      const Line<Element> line(from);
#pragma GCC unroll 4
      for (int i = 0; i < kLine; ++i) Store(to + i * kPanel, line.At(i));
      from += kLine * kPanel;
      to += kLine * kPanel;
    }
    for (int rest = depth % kLine; rest > 0; --rest, from += kPanel, to += kPanel)
      Store(to, Load(from));
  }
}

/// P panels of one block for all rows; narrow weights are decoded once for all tiles. by_panel: the
/// panels' next block follows, otherwise the same block of the next panels.
template <typename Element, int P, bool kStream>
void LinearGroup(const LinearBlock& b, const float* x, std::int64_t ldx, int panel, int k0,
                 bool by_panel) {
  const std::int64_t stride = static_cast<std::int64_t>(b.w.k) * kPanel;
  const Element* w = static_cast<const Element*>(b.w.data) + panel * stride + k0 * kPanel;
  if constexpr (sizeof(Element) == sizeof(float) || P > kTilePanels) {
    LinearPanels<Element, P, kStream>(b, w, stride, x, ldx, panel, k0);
  } else if (b.m <= TileRows(P)) {
    LinearPanels<Element, P, true>(b, w, stride, x, ldx, panel, k0);
  } else if (kHalfTilesPay && b.m <= kHalfRows) {
    float space[kHalfRows];
    HalfPanel<Element>(b, w, x, ldx, panel, k0, Scales<1>(b, panel, k0 / kBlock, 0, b.m, space));
  } else {
    alignas(64) float strip[P * kBlock * kPanel];
    DecodeStrip<Element, P>(w, stride, std::min(kBlock, b.w.k - k0), strip);
    const Element* next = by_panel && k0 + kBlock < b.w.k
                              ? w + kBlock * kPanel
                              : w + P * stride - (by_panel ? k0 * kPanel : 0);
    LinearPanels<float, P, false, sizeof(Element)>(
        b, strip, kBlock * kPanel, x, ldx, panel, k0, reinterpret_cast<const char*>(next),
        stride * static_cast<std::int64_t>(sizeof(Element)));
  }
}

/// Calls group.operator()<P>(panel) for the panels in the widths that so many rows take.
template <typename Group>
TEMPER_LANES void ForPanels(const LinearBlock& b, const Group& group) {
  const int most = TilePanels(b.m);
  int panel = b.panel;
  for (; most >= 4 && panel + 4 <= b.panel_end; panel += 4) group.template operator()<4>(panel);
  for (; most >= 2 && panel + 2 <= b.panel_end; panel += 2) group.template operator()<2>(panel);
  for (; panel < b.panel_end; ++panel) group.template operator()<1>(panel);
}

/// Inputs of so many floats stay in the second-level cache: the weights are then read once, in the
/// order of memory. Beyond, a slice of x stays for all panels and a slice of a panel for all rows.
constexpr std::int64_t kCachedInputs = 64 * 1024;

/// Rows a multiple of 2 KiB apart fall into the same few sets of the caches: many are copied.
bool RowsCollide(const LinearBlock& b) { return b.ldx % 512 == 0 && b.m > 4; }

/// Inputs [k0, k0 + depth) of all rows, ldc apart.
void CopyInputs(const LinearBlock& b, int k0, int depth, float* to, std::int64_t ldc) {
  for (int r = 0; r < b.m; ++r) std::copy_n(b.x + r * b.ldx + k0, depth, to + r * ldc);
}

template <typename Element>
void LinearOf(const LinearBlock& b) {
  // Narrow weights of a few rows: one panel after the other is faster where there are blocks
  // enough.
  if (sizeof(Element) < sizeof(float) && b.m <= kMaxStreamRows && b.w.k >= 4 * kBlock)
    return LinearStream<Element>(b);
  static thread_local Scratch scratch;
  const bool copy = RowsCollide(b);
  const std::int64_t m = b.m;
  if (m * b.w.k <= kCachedInputs) {
    const float* x = b.x;
    std::int64_t ldx = b.ldx;
    if (copy) {
      ldx = b.w.k + kPanel;
      float* to = scratch.Reserve(m * ldx);
      CopyInputs(b, 0, b.w.k, to, ldx);
      x = to;
    }
    ForPanels(b, [&]<int P>(int panel) {
      for (int k0 = 0; k0 < b.w.k; k0 += kBlock)
        LinearGroup<Element, P, true>(b, x + k0, ldx, panel, k0, true);
    });
    return;
  }
  float* slice = copy ? scratch.Reserve(m * kBlock) : nullptr;
  for (int k0 = 0; k0 < b.w.k; k0 += kBlock) {
    if (copy) CopyInputs(b, k0, std::min(kBlock, b.w.k - k0), slice, kBlock);
    const float* x = copy ? slice : b.x + k0;
    const std::int64_t ldx = copy ? kBlock : b.ldx;
    ForPanels(
        b, [&]<int P>(int panel) { LinearGroup<Element, P, false>(b, x, ldx, panel, k0, false); });
  }
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
