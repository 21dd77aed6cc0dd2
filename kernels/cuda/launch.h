#pragma once
// Starting a kernel: one place that turns CUDA's status into an error and admits large shared
// memory.
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/cuda_kernels.h"

namespace temper::kernels::cuda {

inline constexpr std::uint32_t kAllLanes = 0xFFFFFFFFu;
inline constexpr int kWarpLanes = 32;

#ifdef TEMPER_SIMT
template <typename T>
T* DynamicShared() {
  return reinterpret_cast<T*>(simt::dynamic_shared);
}
#else
extern __shared__ __align__(16) unsigned char dynamic_shared[];
/// What Launch()'s `shared` reserved, 16-byte aligned.
template <typename T>
__device__ __forceinline__ T* DynamicShared() {
  return reinterpret_cast<T*>(dynamic_shared);
}
#endif

/// Throws CudaError that names the kernel.
void CheckStatus(cudaError_t status, const char* kernel);

/// Blocks of `each` that cover `count`. Throws std::logic_error past what a grid's x holds.
unsigned GridFor(std::int64_t count, std::int64_t each, const char* kernel);

template <typename... P, typename... A>
void Launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared,
            cudaStream_t stream, A... arguments) {
  if (grid.x == 0) return;  // no rows, no work
  // What every kernel has without asking is 48 KiB; the call is allowed inside a graph's capture.
  if (shared > 48 * 1024) {
    CheckStatus(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(shared)),
                name);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  CheckStatus(cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...), name);
}

}  // namespace temper::kernels::cuda
