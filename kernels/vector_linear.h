#pragma once
// Linear layers over Lanes: tiles of rows x panels. Included by avx2.cc and avx512.cc after their
// lanes.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/linear.h"
#include "kernels/parts.h"
#include "kernels/variant.h"
#include "kernels/vector_pack.h"

namespace temper::kernels {
namespace {

/// Inputs that a cache line of a panel holds.
template <typename Element>
constexpr int kLineInputs = 64 / (kPanel * static_cast<int>(sizeof(Element)));

/// One cache line of a panel: At(i) is input i's sixteen weights.
template <typename Element>
struct Line {
  TEMPER_LANES explicit Line(const Element* p) : p(p) {}
  TEMPER_LANES Lanes At(int i) const { return Load(p + i * kPanel); }
  const Element* p;
};
#ifdef TEMPER_FP8_LINE
template <>
struct Line<std::uint8_t> : TEMPER_FP8_LINE {
  using TEMPER_FP8_LINE::TEMPER_FP8_LINE;
};
#endif

/// Inputs of 16 KiB: so far ahead memory is asked for.
template <typename Element>
constexpr int kAhead = 16384 / (kPanel * static_cast<int>(sizeof(Element)));

template <typename Element>
TEMPER_LANES void Prefetch(const Element* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}

/// One block of the sum for R rows and P panels: a from 0, then y[r * ldy + 16 p + lane] =
/// fma(a, scale[r * P + p], y), with 0 for y in the first block.
///   w  [P][depth][16], panels `stride` elements apart    x  [depth][R]
/// kStream: w comes from memory and is read ahead.
template <typename Element, int R, int P, bool kStream>
void LinearTile(const Element* w, std::int64_t stride, int depth, const float* x,
                const float* scale, bool first, float* y, std::int64_t ldy) {
  Lanes sum[R][P];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) sum[r][p] = Zero();
  }
  const auto multiply = [&](const Lanes* weight, const float* input)
      __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Lanes one = Broadcast(input[r]);
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) sum[r][p] = Fma(weight[p], one, sum[r][p]);
    }
  };
  constexpr int kLine = kLineInputs<Element>;
  for (int lines = depth / kLine; lines > 0; --lines) {
    if constexpr (kStream) {
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) Prefetch(w + p * stride + kAhead<Element> * kPanel);
    }
    if constexpr (P == 1) {
      const Line<Element> line(w);
#pragma GCC unroll 4
      for (int i = 0; i < kLine; ++i) {
        const Lanes weight = line.At(i);
        multiply(&weight, x + i * R);
      }
    } else {
      const Line<Element> line(w), second(w + stride);
#pragma GCC unroll 4
      for (int i = 0; i < kLine; ++i) {
        const Lanes weight[2] = {line.At(i), second.At(i)};
        multiply(weight, x + i * R);
      }
    }
    w += kLine * kPanel;
    x += kLine * R;
  }
  for (int rest = depth % kLine; rest > 0; --rest, w += kPanel, x += R) {
    Lanes weight[P];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) weight[p] = Load(w + p * stride);
    multiply(weight, x);
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
using TileFunction = void (*)(const Element*, std::int64_t, int, const float*, const float*, bool,
                              float*, std::int64_t);

template <typename Element>
struct TileTable {
  TileFunction<Element> rows[kMaxTileRows + 1];
};

template <typename Element, int P, bool kStream, int... R>
constexpr TileTable<Element> MakeTiles(std::integer_sequence<int, R...>) {
  return {{nullptr, LinearTile<Element, R + 1, P, kStream>...}};
}

/// Tiles for 1 .. kMaxTileRows rows.
template <typename Element, int P, bool kStream>
constexpr TileTable<Element> kTiles =
    MakeTiles<Element, P, kStream>(std::make_integer_sequence<int, kMaxTileRows>{});

/// Rows are spread evenly over tiles: 7 rows are 4 + 3, never 6 + 1, since a short tile is as slow
/// as a full one.
struct RowTiles {
  explicit RowTiles(int m) : m(m), tiles((m + kMaxTileRows - 1) / kMaxTileRows) {}
  template <typename Body>
  TEMPER_LANES void ForEach(const Body& body) const {
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
  static_assert(kMaxTileRows * P <= 24);
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

/// P panels of one block for all rows, whose inputs are packed: the last panel may have fewer than
/// 16 outputs.
template <typename Element, int P, bool kStream>
void LinearPanels(const LinearBlock& b, const Element* w, std::int64_t stride, const float* packed,
                  int panel, int k0) {
  const int outputs = std::min(b.w.n - panel * kPanel, P * kPanel);
  const int depth = std::min(kBlock, b.w.k - k0);
  RowTiles(b.m).ForEach([&](int row, int rows) {
    const TileFunction<Element> tile = kTiles<Element, P, kStream>.rows[rows];
    const float* x = packed + row * depth;
    float* y = b.y + row * b.ldy + panel * kPanel;
    float space[kMaxTileRows * P];
    const float* scale = Scales<P>(b, panel, k0 / kBlock, row, rows, space);
    if (outputs == P * kPanel) {
      tile(w, stride, depth, x, scale, k0 == 0, y, b.ldy);
      return;
    }
    alignas(64) float buffer[kMaxTileRows * P * kPanel];
    for (int r = 0; r < rows && k0 > 0; ++r)
      std::copy_n(y + r * b.ldy, outputs, buffer + r * P * kPanel);
    tile(w, stride, depth, x, scale, k0 == 0, buffer, P * kPanel);
    for (int r = 0; r < rows; ++r) std::copy_n(buffer + r * P * kPanel, outputs, y + r * b.ldy);
  });
}

/// The inputs [k0, k0 + depth) of all rows: tile after tile, each [depth][rows].
void PackInputs(const LinearBlock& b, int k0, int depth, float* out) {
  RowTiles(b.m).ForEach([&](int row, int rows) {
    PackRowsAcross(b.x + row * b.ldx + k0, b.ldx, rows, depth, out + row * depth);
  });
}

/// Decodes P panels of one block into floats, reading ahead.
template <typename Element, int P>
TEMPER_LANES void DecodeStrip(const Element* w, std::int64_t stride, int depth, float* strip) {
  constexpr int kLine = kLineInputs<Element>;
  for (int p = 0; p < P; ++p) {
    const Element* from = w + p * stride;
    float* to = strip + p * kBlock * kPanel;
    for (int lines = depth / kLine; lines > 0; --lines) {
      // The end of a panel asks for the next one, which comes soon.
      Prefetch(from + kAhead<Element> / kTilePanels * kPanel);
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

/// P panels of one block for all rows; narrow weights are decoded once for all tiles.
template <typename Element, int P>
TEMPER_LANES void LinearGroup(const LinearBlock& b, const float* packed, int panel, int k0) {
  const std::int64_t stride = static_cast<std::int64_t>(b.w.k) * kPanel;
  const Element* w = static_cast<const Element*>(b.w.data) + panel * stride + k0 * kPanel;
  if (b.m <= kMaxTileRows) {
    LinearPanels<Element, P, true>(b, w, stride, packed, panel, k0);
  } else if constexpr (sizeof(Element) == sizeof(float)) {
    LinearPanels<Element, P, false>(b, w, stride, packed, panel, k0);
  } else {
    alignas(64) float strip[P * kBlock * kPanel];
    DecodeStrip<Element, P>(w, stride, std::min(kBlock, b.w.k - k0), strip);
    LinearPanels<float, P, false>(b, strip, kBlock * kPanel, packed, panel, k0);
  }
}

/// One block of inputs, all panels of [panel, end).
template <typename Element>
void LinearGroups(const LinearBlock& b, const float* packed, int panel, int end, int k0) {
  for (; panel + kTilePanels <= end; panel += kTilePanels)
    LinearGroup<Element, kTilePanels>(b, packed, panel, k0);
  for (; panel < end; ++panel) LinearGroup<Element, 1>(b, packed, panel, k0);
}

/// B blocks of one panel side by side, `depth` inputs each: y[r] = fma(a_b, s_b, y[r]), b
/// ascending. One panel at a time reads memory strictly in order; several blocks hide the latency
/// of the multiply-adds.
template <typename Element, int R, int B>
TEMPER_LANES void StreamBlocks(const Element* w, const float* x, std::int64_t ldx, int depth,
                               const float* scale, Lanes* y) {
  Lanes sum[R][B];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) sum[r][b] = Zero();
  }
  constexpr int kLine = kLineInputs<Element>;
  const auto step = [&](int b, const Lanes& weight, const float* input)
      __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      sum[r][b] = Fma(weight, Broadcast(input[r * ldx + b * kBlock]), sum[r][b]);
  };
  for (int lines = depth / kLine; lines > 0; --lines) {
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) {
      const Element* at = w + b * kBlock * kPanel;
      Prefetch(at + kAhead<Element> * kPanel);
      const Line<Element> line(at);
#pragma GCC unroll 4
      for (int i = 0; i < kLine; ++i) step(b, line.At(i), x + i);
    }
    w += kLine * kPanel;
    x += kLine;
  }
  for (int rest = depth % kLine; rest > 0; --rest, w += kPanel, ++x) {
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) step(b, Load(w + b * kBlock * kPanel), x);
  }
#pragma GCC unroll 8
  for (int b = 0; b < B; ++b) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) y[r] = Fma(sum[r][b], Broadcast(scale[r * B + b]), y[r]);
  }
}

/// One panel for R rows. Memory is read on past the panel into the next one, which comes next.
template <typename Element, int R>
void StreamPanel(const LinearBlock& b, int panel) {
  constexpr int kBlocks = StreamBlocksOf(R);
  const Element* w =
      static_cast<const Element*>(b.w.data) + static_cast<std::int64_t>(panel) * b.w.k * kPanel;
  const std::int64_t blocks = (b.w.k + kBlock - 1) / kBlock;
  const float* scale =
      b.w.scale == nullptr ? nullptr : b.w.scale + panel / (kBlock / kPanel) * blocks;
  Lanes y[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) y[r] = Zero();
  const auto some = [&]<int B>(int k, int depth) __attribute__((always_inline)) {
    float s[R * B];
    for (int i = 0; i < B; ++i) {
      const int block = k / kBlock + i;
      const float ws = scale == nullptr ? 1.0f : scale[block];
      for (int r = 0; r < R; ++r)
        s[r * B + i] = b.x_scale == nullptr ? ws : b.x_scale[r * b.ld_x_scale + block] * ws;
    }
    StreamBlocks<Element, R, B>(w + k * kPanel, b.x + k, b.ldx, depth, s, y);
  };
  int k = 0;
  for (; k + kBlocks * kBlock <= b.w.k; k += kBlocks * kBlock)
    some.template operator()<kBlocks>(k, kBlock);
  for (; k + 2 * kBlock <= b.w.k; k += 2 * kBlock) some.template operator()<2>(k, kBlock);
  for (; k < b.w.k; k += kBlock) some.template operator()<1>(k, std::min(kBlock, b.w.k - k));
  const int outputs = b.w.n - panel * kPanel;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    float* out = b.y + r * b.ldy + panel * kPanel;
    if (outputs >= kPanel) {
      Store(out, y[r]);
    } else {
      Store(out, y[r], FirstLanes(outputs));
    }
  }
}

template <typename Element>
void LinearStream(const LinearBlock& b) {
  for (int panel = b.panel; panel < b.panel_end; ++panel) {
    if (b.m == 1) StreamPanel<Element, 1>(b, panel);
    if (b.m == 2) StreamPanel<Element, 2>(b, panel);
    if constexpr (kMaxStreamRows > 2) {
      if (b.m == 3) StreamPanel<Element, 3>(b, panel);
      if (b.m == 4) StreamPanel<Element, 4>(b, panel);
    }
  }
}

/// Inputs of so many floats stay in the second-level cache: the weights are then read once, in the
/// order of memory. Beyond, a slice of x stays for all panels and a slice of a panel for all rows.
constexpr std::int64_t kCachedInputs = 64 * 1024;

template <typename Element>
void LinearOf(const LinearBlock& b) {
  if (b.m <= kMaxStreamRows) return LinearStream<Element>(b);
  static thread_local Scratch scratch;
  const std::int64_t m = b.m;
  const auto depth = [&](int k0) { return std::min(kBlock, b.w.k - k0); };
  if (m * b.w.k <= kCachedInputs) {
    float* packed = scratch.Reserve(m * b.w.k);
    for (int k0 = 0; k0 < b.w.k; k0 += kBlock) PackInputs(b, k0, depth(k0), packed + m * k0);
    for (int panel = b.panel; panel < b.panel_end; panel += kTilePanels) {
      const int end = std::min(panel + kTilePanels, b.panel_end);
      for (int k0 = 0; k0 < b.w.k; k0 += kBlock)
        LinearGroups<Element>(b, packed + m * k0, panel, end, k0);
    }
    return;
  }
  float* packed = scratch.Reserve(m * kBlock);
  for (int k0 = 0; k0 < b.w.k; k0 += kBlock) {
    PackInputs(b, k0, depth(k0), packed);
    LinearGroups<Element>(b, packed, b.panel, b.panel_end, k0);
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
