// build-cuda/bin/cuda_bench [--tiny] [--device N] [--repeats N]: one JSON object, see
// bench/cuda_kernels.h. Exit 3 and a line where there is no device.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "bench/cuda_kernels.h"
#include "configs/error.h"

int main(int argc, char** argv) {
  temper::bench::CudaSizes sizes;
  int device = 0;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--tiny") == 0) {
      sizes = temper::bench::TinySizes();
    } else if (std::strcmp(argv[i], "--device") == 0 && i + 1 < argc) {
      device = std::atoi(argv[++i]);
    } else if (std::strcmp(argv[i], "--repeats") == 0 && i + 1 < argc) {
      sizes.repeats = std::atoi(argv[++i]);
    } else {
      std::fprintf(stderr, "usage: cuda_bench [--tiny] [--device N] [--repeats N]\n");
      return 2;
    }
  }
  try {
    std::printf("%s\n", temper::bench::BenchCudaKernels(device, sizes).dump(1).c_str());
  } catch (const temper::MachineError& error) {
    std::fprintf(stderr, "cuda_bench: %s\n", error.what());
    return 3;
  }
  return 0;
}
