#include "tests/simt/host_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "tests/simt/simt.h"

using Work = std::function<void()>;

struct CUstream_st {
  std::deque<Work> queue;
  std::unique_ptr<std::vector<Work>> captured;  // null: nothing is captured
};
struct CUevent_st {
  cudaStream_t stream = nullptr;
};
struct CUgraph_st {
  std::vector<Work> work;
};
struct CUgraphExec_st {
  std::vector<Work> work;
};

namespace simt {
namespace {

struct Allocation {
  std::unique_ptr<Memory> memory;
  std::size_t bytes;
};
std::map<void*, Allocation>& Allocations() {
  static std::map<void*, Allocation> all;
  return all;
}

cudaError_t Drain(cudaStream_t stream) {
  if (stream == nullptr) return cudaSuccess;
  if (stream->captured) return cudaErrorInvalidValue;  // as a device: no waiting while capturing
  while (!stream->queue.empty()) {
    const Work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    work();
  }
  return cudaSuccess;
}

}  // namespace

HostState& Host() {
  static HostState state;
  return state;
}

void Enqueue(cudaStream_t stream, Work work) {
  if (stream == nullptr) return work();
  if (stream->captured) {
    stream->captured->push_back(std::move(work));
  } else {
    stream->queue.push_back(std::move(work));
  }
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
  return device < Host().devices ? cudaSuccess : cudaErrorInvalidDevice;
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
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = Host().memory - Host().used;
  *total = Host().memory;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  *p = nullptr;
  if (bytes > Host().memory - Host().used) return cudaErrorMemoryAllocation;
  auto memory = std::make_unique<simt::Memory>(bytes);
  *p = memory->data();
  Host().used += bytes;
  ++Host().allocations;
  simt::Allocations()[*p] = {std::move(memory), bytes};
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  if (p == nullptr) return cudaSuccess;
  const auto found = simt::Allocations().find(p);
  if (found == simt::Allocations().end()) return cudaErrorInvalidValue;
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

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const cudaError_t status = simt::Drain(stream);
  delete stream;
  return status;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  ++Host().waits;
  return simt::Drain(stream);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  // Marks the end of the queue; more work may come behind it before somebody waits.
  event->stream = stream;
  if (stream != nullptr) {
    stream->queue.push_back([event] { event->stream = nullptr; });
  }
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const cudaStream_t stream = event->stream;
  while (stream != nullptr && event->stream != nullptr && !stream->queue.empty()) {
    const Work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    work();
  }
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1;  // time means nothing here
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr || stream->captured) return cudaErrorInvalidValue;
  stream->captured = std::make_unique<std::vector<Work>>();
  ++Host().captures;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!stream->captured) return cudaErrorInvalidValue;
  *graph = new CUgraph_st{std::move(*stream->captured)};
  stream->captured.reset();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  ++Host().graph_launches;
  for (const Work& work : exec->work) simt::Enqueue(stream, work);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
