#include "tests/simt/planted.h"
#include "tests/simt/warp.h"

namespace simt::planted {
namespace {

constexpr int kThreads = 64;

template <bool barrier>
__device__ void ReverseBody(const float* x, int n, float* y, float* shared) {
  const int i = threadIdx.x;
  if (i < n) shared[i] = x[i];
  if (barrier) __syncthreads();
  if (i < n) y[i] = shared[n - 1 - i];
}
__global__ void ReverseKernel(const float* x, int n, float* y) {
  __shared__ float shared[kThreads];
  ReverseBody<true>(x, n, y, shared);
}
__global__ void ReverseRacyKernel(const float* x, int n, float* y) {
  __shared__ float shared[kThreads];
  ReverseBody<false>(x, n, y, shared);
}

__global__ void SumRaceKernel(const float* x, int n, float* y) {
  __shared__ float sum;
  const int i = threadIdx.x;
  if (i == 0) sum = 0.0f;
  __syncthreads();
  if (i < n) sum = sum + x[i];
  __syncthreads();
  if (i == 0) y[0] = sum;
}

__global__ void WarpSumKernel(const float* x, float* y) {
  __shared__ float part[kWarp];
  const int i = threadIdx.x;
  part[i] = x[i];
  for (int half = 16; half > 0; half /= 2) {
    if (i < half) part[i] = part[i] + part[i + half];
  }
  if (i == 0) y[0] = part[0];
}

__global__ void BranchKernel(const float* x, int n, float* y) {
  const int i = threadIdx.x;
  if (i >= n) return;
  __syncthreads();
  y[i] = x[i];
}

__global__ void LeaversKernel(const float* x, int n, float* y) {
  const int i = threadIdx.x;
  if (i >= n) return;
  y[i] = __shfl_xor_sync(0xFFFFFFFFu, x[i], 1);
}

__global__ void TooFarKernel(const float* x, int n, float* y, int read, int write) {
  const int i = threadIdx.x;
  if (i < n) y[i + write] = x[i + read];
}

__global__ void SharedOverrunKernel(float* y) {
  float* shared = reinterpret_cast<float*>(dynamic_shared);
  shared[threadIdx.x + 1] = 1.0f;  // 64 floats were asked for
  __syncthreads();
  y[threadIdx.x] = shared[threadIdx.x];
}

__global__ void CopyKernel(const float* x, float* y) {
  float* shared = reinterpret_cast<float*>(dynamic_shared);
  CopyAsync(shared + 4 * threadIdx.x, x + 4 * threadIdx.x, 16);
  CopyCommit();
  __syncthreads();  // a barrier is no wait for copies
  for (int i = 0; i < 4; ++i) y[4 * threadIdx.x + i] = shared[4 * threadIdx.x + i];
  CopyWait(0);
}

__global__ void NeighbourKernel(int blocks, float* y) {
  const int b = blockIdx.x;
  y[b] = b + 1 < blocks ? y[b + 1] + 1.0f : 0.0f;
}

__global__ void AheadKernel(const float* x, float* y) {
  __shared__ float shared[kThreads];
  const int i = threadIdx.x;
  shared[i] = x[i];
  __syncwarp();
  __syncwarp();
  y[i] = shared[kThreads - 1 - i];
}

template <typename... P, typename... A>
void Start(void (*kernel)(P...), unsigned grid, unsigned block, std::size_t shared, A... a) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  cudaLaunchKernelEx(&config, kernel, static_cast<P>(a)...);
}

}  // namespace

void Reverse(const float* x, int n, float* y) { Start(ReverseKernel, 1, kThreads, 0, x, n, y); }
void ReverseWithoutBarrier(const float* x, int n, float* y) {
  Start(ReverseRacyKernel, 1, kThreads, 0, x, n, y);
}
void SumRace(const float* x, int n, float* y) { Start(SumRaceKernel, 1, kThreads, 0, x, n, y); }
void WarpSumWithoutSync(const float* x, float* y) { Start(WarpSumKernel, 1, kWarp, 0, x, y); }
void BarrierInABranch(const float* x, int n, float* y) {
  Start(BranchKernel, 1, kThreads, 0, x, n, y);
}
void ShuffleWithLeavers(const float* x, int n, float* y) {
  Start(LeaversKernel, 1, kWarp, 0, x, n, y);
}
void ReadsAhead(const float* x, float* y) { Start(AheadKernel, 1, kThreads, 0, x, y); }
void WriteOneTooFar(const float* x, int n, float* y) {
  Start(TooFarKernel, 1, kThreads, 0, x, n, y, 0, 1);
}
void ReadOneTooFar(const float* x, int n, float* y) {
  Start(TooFarKernel, 1, kThreads, 0, x, n, y, 1, 0);
}
void SharedOverrun(float* y) { Start(SharedOverrunKernel, 1, kThreads, 4 * kThreads, y); }
void CopyWithoutWait(const float* x, float* y) { Start(CopyKernel, 1, 8, 128, x, y); }
void BlockReadsItsNeighbour(int blocks, float* y) {
  Start(NeighbourKernel, static_cast<unsigned>(blocks), 1, 0, blocks, y);
}

}  // namespace simt::planted
