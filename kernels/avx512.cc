// The AVX-512 variant: tiles of 12 rows x 32 outputs. Compiled with its own flags, entered after
// cpuid.
// clang-format off
#include "kernels/lanes_avx512.h"
#include "kernels/vector_linear.h"
#include "kernels/vector_attention.h"
#include "kernels/vector_rows.h"
// clang-format on

namespace temper::kernels {
namespace {

void VectorLinear(const LinearBlock& b) {
  static constexpr TileFunction kOne[] = {
      nullptr,           LinearTile<1, 1>,  LinearTile<2, 1>, LinearTile<3, 1>, LinearTile<4, 1>,
      LinearTile<5, 1>,  LinearTile<6, 1>,  LinearTile<7, 1>, LinearTile<8, 1>, LinearTile<9, 1>,
      LinearTile<10, 1>, LinearTile<11, 1>, LinearTile<12, 1>};
  static constexpr TileFunction kTwo[] = {
      nullptr,           LinearTile<1, 2>,  LinearTile<2, 2>, LinearTile<3, 2>, LinearTile<4, 2>,
      LinearTile<5, 2>,  LinearTile<6, 2>,  LinearTile<7, 2>, LinearTile<8, 2>, LinearTile<9, 2>,
      LinearTile<10, 2>, LinearTile<11, 2>, LinearTile<12, 2>};
  static constexpr TileFunction kFour[] = {nullptr, LinearTile<1, 4>, LinearTile<2, 4>,
                                           LinearTile<3, 4>, LinearTile<4, 4>};
  // Few rows leave registers free for more panels: more weights in flight from memory.
  LinearOrder(b, [&b](int panel, int k0) {
    const int left = b.panel_end - panel;
    if (b.m <= 4 && left >= 4) return LinearPanels<4>(b, kFour, 4, panel, k0), 4;
    if (left >= 2) return LinearPanels<2>(b, kTwo, kMaxTileRows, panel, k0), 2;
    return LinearPanels<1>(b, kOne, kMaxTileRows, panel, k0), 1;
  });
}

}  // namespace

const Variant kAvx512Variant = {VectorLinear,      VectorAttention,  VectorRmsNorm,
                                VectorRope,        VectorSwiGlu,     VectorSigmoid,
                                VectorChunkMaxSum, VectorChunkPLogP, VectorProbabilities};

}  // namespace temper::kernels
