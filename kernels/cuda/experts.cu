// Tokens to their experts and back. A counting sort without atomics: each expert's block reads all
// ids, so a token's place is a matter of order alone.
#include "kernels/cuda/launch.h"

namespace temper::kernels::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpLanes;

/// Entries before the caller's for which `mine` holds, in this block's tile; *all: of the tile.
__device__ int RankInBlock(bool mine, int* warp_count, int* all) {
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const unsigned vote = __ballot_sync(kAllLanes, mine ? 1 : 0);
  if (lane == 0) warp_count[warp] = __popc(vote);
  __syncthreads();
  int before = 0, sum = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) before += warp_count[w];
    sum += warp_count[w];
  }
  __syncthreads();  // warp_count is written anew for the next tile
  *all = sum;
  return before + __popc(vote & ((1u << lane) - 1u));
}

__global__ void __launch_bounds__(kThreads)
    CountKernel(const std::int32_t* ids, int count, std::int32_t* offset) {
  __shared__ int warp_count[kWarps];
  const int expert = blockIdx.x;
  int total = 0;
  for (int first = 0; first < count; first += kThreads) {
    const int i = first + threadIdx.x;
    int all;
    RankInBlock(i < count && ids[i] == expert, warp_count, &all);
    total += all;
  }
  if (threadIdx.x == 0) offset[expert + 1] = total;
}

__global__ void ScanKernel(int experts, std::int32_t* offset) {
  std::int32_t sum = 0;
  offset[0] = 0;
  for (int e = 1; e <= experts; ++e) offset[e] = sum += offset[e];
}

__global__ void __launch_bounds__(kThreads)
    PlaceKernel(const std::int32_t* ids, int count, int k, const std::int32_t* offset,
                std::int32_t* slot, std::int32_t* source) {
  __shared__ int warp_count[kWarps];
  const int expert = blockIdx.x;
  int next = offset[expert];
  for (int first = 0; first < count; first += kThreads) {
    const int i = first + threadIdx.x;
    const bool mine = i < count && ids[i] == expert;
    int all;
    const int place = next + RankInBlock(mine, warp_count, &all);
    if (mine) {
      slot[i] = place;
      source[place] = i / k;
    }
    next += all;
  }
}

__global__ void __launch_bounds__(kThreads)
    GatherKernel(const unsigned* from, const std::int32_t* source, std::int64_t words,
                 std::int64_t count, unsigned* to) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) to[i] = from[source[i / words] * words + i % words];
}

__global__ void __launch_bounds__(kThreads)
    CombineKernel(const float* expert_out, std::int64_t lde, const std::int32_t* slot,
                  const float* weight, int k, const float* shared, std::int64_t lds,
                  const float* residual, std::int64_t ldr, std::int64_t count, int d, float* y,
                  std::int64_t ldy) {
  const std::int64_t task = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (task >= count) return;
  const std::int64_t r = task / d, i = task % d;
  float sum = 0.0f;
  for (int j = 0; j < k; ++j) {
    sum = fmaf(weight[r * k + j], expert_out[slot[r * k + j] * lde + i], sum);
  }
  if (shared != nullptr) sum = sum + shared[r * lds + i];
  y[r * ldy + i] = residual != nullptr ? residual[r * ldr + i] + sum : sum;
}

}  // namespace

void SortByExpert(const std::int32_t* ids, int m, int k, int experts, std::int32_t* offset,
                  std::int32_t* slot, std::int32_t* source, cudaStream_t stream) {
  if (m < 0 || k < 1 || experts < 1 || m > (1 << 30) / k) {
    throw std::logic_error("SortByExpert: needs k >= 1, experts >= 1 and m k <= 2^30");
  }
  Launch("SortByExpert count", CountKernel, static_cast<unsigned>(experts), kThreads, 0, stream,
         ids, m * k, offset);
  Launch("SortByExpert scan", ScanKernel, 1, 1, 0, stream, experts, offset);
  Launch("SortByExpert place", PlaceKernel, static_cast<unsigned>(experts), kThreads, 0, stream,
         ids, m * k, k, offset, slot, source);
}

void GatherRows(const void* from, const std::int32_t* source, int rows, std::int64_t bytes,
                void* to, cudaStream_t stream) {
  if (bytes % 4 != 0) throw std::logic_error("GatherRows: a row must be a multiple of 4 bytes");
  const std::int64_t words = bytes / 4, count = rows * words;
  Launch("GatherRows", GatherKernel, GridFor(count, kThreads, "GatherRows"), kThreads, 0, stream,
         static_cast<const unsigned*>(from), source, words, count, static_cast<unsigned*>(to));
}

void CombineExperts(const float* expert_out, std::int64_t lde, const std::int32_t* slot,
                    const float* weight, int k, const float* shared, std::int64_t lds,
                    const float* residual, std::int64_t ldr, int m, int d, float* y,
                    std::int64_t ldy, cudaStream_t stream) {
  const std::int64_t count = std::int64_t{m} * d;
  Launch("CombineExperts", CombineKernel, GridFor(count, kThreads, "CombineExperts"), kThreads, 0,
         stream, expert_out, lde, slot, weight, k, shared, lds, residual, ldr, count, d, y, ldy);
}

}  // namespace temper::kernels::cuda
