// The AVX2 + FMA variant: tiles of 6 rows x 16 outputs.
// clang-format off
#include "kernels/lanes_avx2.h"
#include "kernels/vector_linear.h"
#include "kernels/vector_attention.h"
#include "kernels/vector_rows.h"
// clang-format on

namespace temper::kernels {

const Variant kAvx2Variant = {VectorLinear,      VectorAttention,  VectorRmsNorm,
                              VectorRope,        VectorSwiGlu,     VectorSigmoid,
                              VectorChunkMaxSum, VectorChunkPLogP, VectorProbabilities};

}  // namespace temper::kernels
