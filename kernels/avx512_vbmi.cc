// The AVX-512 variant where the processor has VBMI too: FP8 codes are looked up in tables.
// clang-format off
#include "kernels/lanes_avx512.h"
#include "kernels/vector_linear.h"
#include "kernels/vector_attention.h"
#include "kernels/vector_rows.h"
// clang-format on

namespace temper::kernels {

const Variant kAvx512VbmiVariant = {VectorLinear,      VectorAttention,  VectorRmsNorm,
                                    VectorRope,        VectorSwiGlu,     VectorSigmoid,
                                    VectorChunkMaxSum, VectorChunkPLogP, VectorProbabilities};

}  // namespace temper::kernels
