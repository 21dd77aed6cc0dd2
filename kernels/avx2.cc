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
  // Few rows leave registers free for more panels: more weights in flight from memory.
  LinearOrder(b, [&b](int panel, int k0) {
    const int left = b.panel_end - panel;
    if (b.m == 1 && left >= 4) return LinearPanels<4>(b, kFour, 1, panel, k0), 4;
    if (b.m == 2 && left >= 2) return LinearPanels<2>(b, kTwo, 2, panel, k0), 2;
    return LinearPanels<1>(b, kOne, kMaxTileRows, panel, k0), 1;
  });
}

}  // namespace

const Variant kAvx2Variant = {VectorLinear,      VectorAttention,  VectorRmsNorm,
                              VectorRope,        VectorSwiGlu,     VectorSigmoid,
                              VectorChunkMaxSum, VectorChunkPLogP, VectorProbabilities};

}  // namespace temper::kernels
