#pragma once
// Weights of any type as Lanes, and one to four rows that stream through them panel by panel.
// Included as vector_linear.h is.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "kernels/linear.h"
#include "kernels/variant.h"

namespace temper::kernels {
namespace {

/// Inputs that a cache line of a panel holds.
template <typename Element>
constexpr int kLineInputs = 64 / (kPanel * static_cast<int>(sizeof(Element)));

/// One cache line of a panel: At(i) is input i's sixteen weights.
template <typename Element>
struct Line {
  Line() = default;
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

}  // namespace
}  // namespace temper::kernels
