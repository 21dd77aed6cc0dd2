#pragma once
// The host's half of CUDA's runtime for the machine of simt.h: memory, streams, events, graphs.
//
// A stream is a queue that runs when somebody waits for it, never earlier: whoever reads a result
// without waiting, or changes a buffer that a copy has yet to read, sees what a device might show.
// While a stream runs, other devices' memory can't be touched, and a kernel belongs on a stream of
// the device in use. A graph is replayed on streams of its own, so that an edge it lacks is seen.
// What a machine may lack is set by simt::Host().
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnjoined = 904,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3
};
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
inline constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2;

using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;

struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount;
  std::size_t totalGlobalMem, sharedMemPerBlockOptin;
};

const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* device, int number);
cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int device);
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total);
cudaError_t cudaMalloc(void** p, std::size_t bytes);
cudaError_t cudaFree(void* p);
cudaError_t cudaMallocHost(void** p, std::size_t bytes);
cudaError_t cudaFreeHost(void* p);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
/// What is queued runs when it is asked for and simt::Ready() says that it can.
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                 unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

namespace simt {

/// What the machine is, what it will refuse, and what was asked of it.
struct HostState {
  int devices = 2, major = 9, minor = 0, driver = 13000, runtime = 13000;
  std::size_t memory = std::size_t{1} << 30;  // of each device
  std::size_t used = 0;                       // of all of them
  std::size_t shared = 227 << 10;             // that a block may ask for
  bool isolated = true;  // see above; not where several threads use devices at once
  cudaError_t launch_error = cudaSuccess;  // of the next launch
  int failed = -1;                         // a device that no longer computes
  // Counts since the last reset.
  std::uint64_t waits = 0, launches = 0, graph_launches = 0, captures = 0, allocations = 0,
                copies_to_host = 0, collectives = 0, aborts = 0;
  std::size_t bytes_to_host = 0;
};
HostState& Host();

/// Runs `work` now (no stream), or joins the stream's queue or what is being captured of it.
void Enqueue(cudaStream_t stream, std::function<void()> work);
/// The same once all of these streams have come so far, as a collective of their devices; each goes
/// on behind it.
void EnqueueTogether(const std::vector<cudaStream_t>& streams, std::function<void()> work);
int CurrentDevice();
/// Closes the memory of all other devices; -1: opens everything.
void OpenMemoryOf(int device);
int DeviceOf(cudaStream_t stream);
/// Whether what waits in the stream could run to its end on a device; empty: always.
std::function<bool(cudaStream_t)>& Ready();

}  // namespace simt
