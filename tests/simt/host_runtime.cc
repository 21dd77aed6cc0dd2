#include "tests/simt/host_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "tests/simt/simt.h"

namespace simt {
namespace {

struct Allocation {
  std::unique_ptr<Memory> memory;
  std::size_t bytes;
  int device;
};
std::map<void*, Allocation>& Allocations() {
  static std::map<void*, Allocation> all;
  return all;
}
std::mutex& AllocationsMutex() {
  static std::mutex mutex;
  return mutex;
}
std::map<int, std::size_t>& Used() {
  static std::map<int, std::size_t> used;  // by device
  return used;
}

thread_local int current_device = 0;

}  // namespace

HostState& Host() {
  static HostState state;
  return state;
}

int CurrentDevice() { return current_device; }

void OpenMemoryOf(int device) {
  static int open = -1;
  if (open == device) return;
  const std::lock_guard lock(AllocationsMutex());
  if (Used().size() < 2 || !Host().isolated) return;
  for (const auto& [at, a] : Allocations()) a.memory->Open(device < 0 || a.device == device);
  open = device;
}

}  // namespace simt

using simt::Host;

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorStreamCaptureUnjoined:
      return "operation failed due to an unjoined stream capture";
    default:
      return "invalid argument";
  }
}

cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) {
  *version = Host().driver;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = Host().runtime;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = Host().devices;
  if (Host().driver < Host().runtime / 1000 * 1000) return cudaErrorInsufficientDriver;
  return Host().devices == 0 ? cudaErrorNoDevice : cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device >= Host().devices) return cudaErrorInvalidDevice;
  simt::current_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* device, int number) {
  if (number >= Host().devices) return cudaErrorInvalidDevice;
  *device = {};
  std::snprintf(device->name, sizeof device->name, "a device of simt");
  device->major = Host().major;
  device->minor = Host().minor;
  device->multiProcessorCount = 4;
  device->totalGlobalMem = Host().memory;
  device->sharedMemPerBlockOptin = Host().shared;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int device) {
  std::snprintf(text, std::size_t(size), "0000:%02x:00.0", unsigned(device));
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  const std::lock_guard lock(simt::AllocationsMutex());
  *free = Host().memory - simt::Used()[simt::current_device];
  *total = Host().memory;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  *p = nullptr;
  const std::lock_guard lock(simt::AllocationsMutex());
  std::size_t& used = simt::Used()[simt::current_device];
  if (bytes > Host().memory - used) return cudaErrorMemoryAllocation;
  auto memory = std::make_unique<simt::Memory>(bytes);
  *p = memory->data();
  used += bytes;
  Host().used += bytes;
  ++Host().allocations;
  simt::Allocations()[*p] = {std::move(memory), bytes, simt::current_device};
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  if (p == nullptr) return cudaSuccess;
  const std::lock_guard lock(simt::AllocationsMutex());
  const auto found = simt::Allocations().find(p);
  if (found == simt::Allocations().end()) return cudaErrorInvalidValue;
  std::size_t& used = simt::Used()[found->second.device];
  used -= found->second.bytes;
  if (used == 0) simt::Used().erase(found->second.device);
  Host().used -= found->second.bytes;
  simt::Allocations().erase(found);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** p, std::size_t bytes) {
  *p = std::malloc(bytes == 0 ? 1 : bytes);
  return *p == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (kind == cudaMemcpyDeviceToHost) {
    ++Host().copies_to_host;
    Host().bytes_to_host += bytes;
  }
  simt::Enqueue(stream, [=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  simt::Enqueue(stream, [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
