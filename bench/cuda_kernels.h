#pragma once
// Each CUDA kernel's time on a device, beside the device's own copy and GEMM rates of the same run.
#include <string>

#include "configs/json.h"

namespace temper::bench {

/// A model's sizes, DeepSeek-V3's. Attention's kernel wants 512 + 64, CUTLASS's multiples of 128.
struct CudaSizes {
  int rows = 32, hidden = 7168, heads = 128, keys = 4096, experts = 256, top_k = 8, width = 2048;
  int outputs = 4096, vocabulary = 129280, prefill = 4096;
  std::size_t copy_bytes = std::size_t{1} << 30;
  int repeats = 20;
};
/// Sizes at which every kernel's every branch is taken in milliseconds.
CudaSizes TinySizes();

/// {"device", "copy_gb_s", "gemm_tflop_s" (CUTLASS's FP8; 0 where it isn't built), "kernels": [{"kernel", "shape",
/// "us", "gb_s", "tflop_s", "copy_share", "gemm_share"}]}. Medians of `repeats`; bytes and operations are what the
/// contract asks for, not what the kernel happens to move. Throws MachineError.
Json BenchCudaKernels(int device, const CudaSizes& sizes);

}  // namespace temper::bench
