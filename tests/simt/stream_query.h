#pragma once
// Asking a stream instead of waiting for it, and a device's bus.
#include <functional>

#include "tests/simt/host_runtime.h"

inline constexpr cudaError_t cudaErrorNotReady = static_cast<cudaError_t>(600);

/// What is queued runs when it is asked for and simt::Ready() says that it can.
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int device);

namespace simt {

/// Whether what waits in the stream could run to its end on a device; empty: always.
std::function<bool(cudaStream_t)>& Ready();

}  // namespace simt
