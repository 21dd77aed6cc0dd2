#include "engine/cuda/targets.h"

#include <cuda_runtime.h>

#include <cstdlib>
#include <sstream>

#include "engine/cuda/status.h"

namespace temper::engine::cuda {

namespace {

#ifndef TEMPER_CUDA_TARGETS
#define TEMPER_CUDA_TARGETS "90a"
#endif

std::string Capability(int major, int minor) {
  return std::to_string(major) + "." + std::to_string(minor);
}

/// Why no device can be asked for.
std::string Problem(cudaError_t status, const Found& found) {
  if (found.driver == 0) return "no NVIDIA driver here; install one, or choose device cpu";
  if (found.driver / 1000 < found.runtime / 1000) {
    return "the driver serves CUDA " + VersionText(found.driver) + ", this build needs " +
           VersionText(found.runtime / 1000 * 1000) +
           " or newer; update the driver, or choose device cpu";
  }
  if (status == cudaErrorNoDevice || (status == cudaSuccess && found.devices.empty())) {
    return "no CUDA device here (CUDA_VISIBLE_DEVICES may hide it); choose device cpu";
  }
  return status == cudaSuccess ? "" : cudaGetErrorString(status);
}

}  // namespace

const char* Targets() { return TEMPER_CUDA_TARGETS; }

std::string VersionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

bool RunsOn(const std::string& targets, int major, int minor) {
  std::istringstream in(targets);
  for (std::string target; in >> target;) {
    const int number = std::atoi(target.c_str()), capability = 10 * major + minor;
    if (target.find("ptx") != std::string::npos) {
      if (capability >= number) return true;
    } else if (target.back() == 'a') {
      if (capability == number) return true;
    } else if (capability / 10 == number / 10 && capability >= number) {
      return true;
    }
  }
  return false;
}

Found FindDevices() {
  Found found;
  cudaDriverGetVersion(&found.driver);
  cudaRuntimeGetVersion(&found.runtime);
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    cudaGetLastError();  // it would be the next call's too
    count = 0;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp device{};
    FoundDevice one;
    const cudaError_t asked = cudaGetDeviceProperties(&device, i);
    if (asked != cudaSuccess) one.problem = cudaGetErrorString(asked);
    one.name = device.name;
    one.major = device.major;
    one.minor = device.minor;
    one.multiprocessors = device.multiProcessorCount;
    one.bytes = double(device.totalGlobalMem);
    one.shared = device.sharedMemPerBlockOptin;
    if (one.problem.empty() && !RunsOn(Targets(), one.major, one.minor)) {
      one.problem = one.name + " has compute capability " + Capability(one.major, one.minor) +
                    ", this build's kernels are for " + Targets() +
                    "; build with TEMPER_CUDA_TARGETS for it, or choose device cpu";
    }
    found.devices.push_back(one);
  }
  found.problem = Problem(status, found);
  return found;
}

}  // namespace temper::engine::cuda

namespace temper::engine {

DeviceStatus CudaStatus() {
  const cuda::Found found = cuda::FindDevices();
  DeviceStatus status;
  status.found = "built with CUDA " + cuda::VersionText(found.runtime) + " for " + cuda::Targets();
  if (found.driver > 0) status.found += "; driver for CUDA " + cuda::VersionText(found.driver);
  status.remedy = found.problem;
  for (std::size_t i = 0; i < found.devices.size(); ++i) {
    const cuda::FoundDevice& d = found.devices[i];
    status.found += "; cuda:" + std::to_string(i) + " " + d.name + ", compute capability " +
                    std::to_string(d.major) + "." + std::to_string(d.minor) + ", " +
                    std::to_string(int(d.bytes / (1 << 30) + 0.5)) + " GiB";
    status.usable = status.usable || d.problem.empty();
    if (!d.problem.empty()) status.remedy = d.problem;
  }
  if (status.usable) status.remedy.clear();
  return status;
}

}  // namespace temper::engine
