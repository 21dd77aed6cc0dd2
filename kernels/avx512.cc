// The AVX-512 variant: tiles of 12 rows x 32 outputs. Compiled with its own flags, entered after
// cpuid.
// clang-format off
#include "kernels/lanes_avx512.h"
#include "kernels/vector_linear.h"
#include "kernels/vector_attention.h"
#include "kernels/vector_rows.h"
// clang-format on

namespace temper::kernels {

const Variant kAvx512Variant = {VectorLinear,      VectorAttention,  VectorRmsNorm,
                                VectorRope,        VectorSwiGlu,     VectorSigmoid,
                                VectorChunkMaxSum, VectorChunkPLogP, VectorProbabilities};

}  // namespace temper::kernels
