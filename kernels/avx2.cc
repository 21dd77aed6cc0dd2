// The AVX2 + FMA variant: tiles of 6 rows x 16 outputs.
// clang-format off
#include "kernels/lanes_avx2.h"
#include "kernels/vector_linear.h"
#include "kernels/vector_attention.h"
#include "kernels/vector_rows.h"
// clang-format on

namespace temper::kernels {
namespace {

void VectorLinear(const LinearBlock& b) {
  static constexpr TileFunction kOne[] = {nullptr,          LinearTile<1, 1>, LinearTile<2, 1>,
                                          LinearTile<3, 1>, LinearTile<4, 1>, LinearTile<5, 1>,
                                          LinearTile<6, 1>};
  static constexpr TileFunction kTwo[] = {nullptr, nullptr, LinearTile<2, 2>};
  static constexpr TileFunction kFour[] = {nullptr, LinearTile<1, 4>};
  int panel = b.panel;
  // Few rows leave registers free for more panels: more weights in flight from memory.
  if (b.m == 1) {
    for (; panel + 4 <= b.panel_end; panel += 4) LinearPanels<4>(b, kFour, 1, panel);
  } else if (b.m == 2) {
    for (; panel + 2 <= b.panel_end; panel += 2) LinearPanels<2>(b, kTwo, 2, panel);
  }
  for (; panel < b.panel_end; ++panel) LinearPanels<1>(b, kOne, kMaxTileRows, panel);
}

}  // namespace

const Variant kAvx2Variant = {VectorLinear,      VectorAttention,  VectorRmsNorm,
                              VectorRope,        VectorSwiGlu,     VectorSigmoid,
                              VectorChunkMaxSum, VectorChunkPLogP, VectorProbabilities};

}  // namespace temper::kernels
