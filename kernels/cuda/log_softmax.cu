// Log-sum-exp over the vocabulary: half a warp a chunk of 1024, sixteen strided lanes each.
#include "kernels/cuda/device_math.h"
#include "kernels/cuda/launch.h"
#include "kernels/variant.h"

namespace temper::kernels::cuda {
namespace {

constexpr int kThreads = 128, kLanes = 16, kHalves = kThreads / kLanes;
constexpr int kEach = kChunk / kLanes;  // entries of a chunk a lane

__host__ __device__ inline int ChunksOf(int v) { return (v + kChunk - 1) / kChunk; }

/// lane i += lane i + 8, + 4, + 2, + 1 of the caller's half warp; the sum is at its lane 0.
__device__ __forceinline__ float TreeSum(float x) {
#pragma unroll
  for (int half = 8; half >= 1; half /= 2) x = x + __shfl_down_sync(kAllLanes, x, half);
  return x;
}

/// The half warp's chunk; *row the row, *n its entries (0: none left).
__device__ int ChunkOf(int m, int v, std::int64_t* row, int* n) {
  const int chunks = ChunksOf(v);
  const std::int64_t task = std::int64_t{blockIdx.x} * kHalves + threadIdx.x / kLanes;
  *row = task / chunks;
  const int first = static_cast<int>(task % chunks) * kChunk;
  *n = *row >= m ? 0 : min(kChunk, v - first);
  return first;
}

__global__ void __launch_bounds__(kThreads) ChunkKernel(LogSoftmaxArgs a) {
  const int lane = threadIdx.x % kLanes;
  std::int64_t r;
  int n;
  const int first = ChunkOf(a.m, a.v, &r, &n);
  const float temperature = n > 0 ? a.temperature[r] : 1.0f;
  const float* logits = a.logits + (n > 0 ? r * a.ld + first : 0);
  float x[kEach], max = -__uint_as_float(0x7F800000u);
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    const int i = j * kLanes + lane;
    if (i >= n) break;
    x[j] = logits[i] / temperature;
    max = max < x[j] ? x[j] : max;
  }
#pragma unroll
  for (int step = 8; step >= 1; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, max, step);
    max = max < other ? other : max;
  }
  float sum = 0.0f;
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    if (j * kLanes + lane < n) sum = sum + Exp(x[j] - max);
  }
  sum = TreeSum(sum);
  if (lane == 0 && n > 0) {
    float* part = a.scratch + 2 * (r * ChunksOf(a.v) + first / kChunk);
    part[0] = max;
    part[1] = sum;
  }
}

// A thread a row: chunks ascending.
__global__ void __launch_bounds__(kWarpLanes) MergeKernel(LogSoftmaxArgs a) {
  const int r = static_cast<int>(blockIdx.x * kWarpLanes + threadIdx.x);
  if (r >= a.m) return;
  const int chunks = ChunksOf(a.v);
  const float* part = a.scratch + std::int64_t{2} * r * chunks;
  float max = part[0], sum = part[1];
  for (int c = 1; c < chunks; ++c) {
    const float other = part[2 * c], most = max < other ? other : max;
    sum = fmaf(part[2 * c + 1], Exp(other - most), sum * Exp(max - most));
    max = most;
  }
  const float lse = max + Log(sum);
  a.lse[r] = lse;
  if (a.logp == nullptr) return;
  a.logp[r] = a.logits[r * a.ld + a.target[r]] / a.temperature[r] - lse;
}

__global__ void __launch_bounds__(kThreads) EntropyChunkKernel(LogSoftmaxArgs a) {
  const int lane = threadIdx.x % kLanes;
  std::int64_t r;
  int n;
  const int first = ChunkOf(a.m, a.v, &r, &n);
  float sum = 0.0f;
  for (int i = lane; i < n; i += kLanes) {
    const float logp = a.logits[r * a.ld + first + i] / a.temperature[r] - a.lse[r];
    sum = fmaf(Exp(logp), logp, sum);
  }
  sum = TreeSum(sum);
  if (lane == 0 && n > 0) a.scratch[r * ChunksOf(a.v) + first / kChunk] = sum;
}

__global__ void __launch_bounds__(kWarpLanes) EntropyMergeKernel(LogSoftmaxArgs a) {
  const int r = static_cast<int>(blockIdx.x * kWarpLanes + threadIdx.x);
  if (r >= a.m) return;
  const int chunks = ChunksOf(a.v);
  float sum = 0.0f;
  for (int c = 0; c < chunks; ++c) sum = sum + a.scratch[std::int64_t{r} * chunks + c];
  a.entropy[r] = -sum;
}

}  // namespace

std::int64_t LogSoftmaxScratch(int m, int v) { return std::int64_t{2} * m * ChunksOf(v); }

void LogSoftmax(const LogSoftmaxArgs& a, cudaStream_t stream) {
  if (a.m < 0 || a.v < 1 || (a.logp != nullptr && a.target == nullptr)) {
    throw std::logic_error("LogSoftmax: needs m >= 0, v >= 1 and targets for log-probs");
  }
  const unsigned chunks = GridFor(std::int64_t{a.m} * ChunksOf(a.v), kHalves, "LogSoftmax");
  const unsigned rows = GridFor(a.m, kWarpLanes, "LogSoftmax");
  Launch("LogSoftmax chunks", ChunkKernel, chunks, kThreads, 0, stream, a);
  Launch("LogSoftmax merge", MergeKernel, rows, kWarpLanes, 0, stream, a);
  if (a.entropy == nullptr) return;
  Launch("Entropy chunks", EntropyChunkKernel, chunks, kThreads, 0, stream, a);
  Launch("Entropy merge", EntropyMergeKernel, rows, kWarpLanes, 0, stream, a);
}

}  // namespace temper::kernels::cuda
