// device_test: the kernels on the machine's own device, or a word that there is none.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdio>

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess || devices == 0) {
    std::printf("skipped: %s\n", status != cudaSuccess ? cudaGetErrorString(status) : "no device");
    return 77;
  }
  cudaDeviceProp device{};
  cudaGetDeviceProperties(&device, 0);
  std::printf("device: %s, compute capability %d.%d\n", device.name, device.major, device.minor);
  if (device.major != 9) {
    std::printf("skipped: the kernels are built for compute capability 9.0\n");
    return 77;
  }
  return RUN_ALL_TESTS();
}
