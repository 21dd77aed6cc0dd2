#include "tests/simt/stream_query.h"

#include <cstdio>

namespace simt {

std::function<bool(cudaStream_t)>& Ready() {
  static std::function<bool(cudaStream_t)> ready;
  return ready;
}

}  // namespace simt

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (simt::Host().failed == simt::DeviceOf(stream)) return cudaErrorLaunchFailure;
  if (simt::Host().failed >= 0) return cudaErrorNotReady;  // waits for the failed one
  if (simt::Ready() && !simt::Ready()(stream)) return cudaErrorNotReady;
  return cudaStreamSynchronize(stream);
}

cudaError_t cudaEventQuery(cudaEvent_t event) { return cudaEventSynchronize(event); }

cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int device) {
  std::snprintf(text, static_cast<std::size_t>(size), "0000:%02x:00.0", device);
  return cudaSuccess;
}
