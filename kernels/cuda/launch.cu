#include <limits>
#include <string>

#include "kernels/cuda/launch.h"

namespace temper::kernels::cuda {

void CheckStatus(cudaError_t status, const char* kernel) {
  if (status == cudaSuccess) return;
  throw CudaError(std::string(kernel) + ": CUDA error: " + cudaGetErrorString(status));
}

unsigned GridFor(std::int64_t count, std::int64_t each, const char* kernel) {
  const std::int64_t blocks = (count + each - 1) / each;
  if (count < 0 || blocks > std::numeric_limits<std::int32_t>::max()) {
    throw std::logic_error(std::string(kernel) + ": " + std::to_string(blocks) +
                           " blocks; a grid holds 2147483647");
  }
  return static_cast<unsigned>(blocks);
}

}  // namespace temper::kernels::cuda
