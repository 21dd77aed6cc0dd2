#pragma once
// The running sum of kernels/running_sum.h by one block: the bits of the plain loop, in parallel.
#include <cuda_runtime.h>

#include "kernels/cuda/launch.h"

namespace temper::kernels::cuda {

inline constexpr int kRunThreads = 256;
inline constexpr int kRunWarps = kRunThreads / kWarpLanes;
inline constexpr int kRunEntries = 256;  // between two stored sums: a warp's share
inline constexpr int kRunEach = kRunEntries / kWarpLanes;
inline constexpr int kRunUnits = 1 << 24;  // of a float in its binade

struct RunningShared {
  int units[kRunWarps];  // -1: the chunk must be added one by one
  float entry[kRunEntries];
  float sum;
  int next;  // first chunk of the eight that isn't in the sum
  int found;
};

/// One over the unit of the last place of `sum`, or 0 where it leaves the range of floats.
__device__ __forceinline__ float UnitsOf(float sum) {
  if (!(sum >= 0x1p-100f && sum <= 0x1p100f)) return 0.0f;
  return __uint_as_float((254u - ((__float_as_uint(sum) >> 23) - 23u)) << 23);
}

/// A warp's chunk in units, or -1 where adding it so isn't exact: an exact tie, or too large.
__device__ inline int ChunkUnits(const float (&p)[kRunEach], float scale) {
  bool bad = false;
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kRunEach; ++i) {
    const float units = p[i] * scale;  // exact
    if (!(units < static_cast<float>(kRunUnits)) || (scale == 0.0f && p[i] != 0.0f)) {
      bad = true;
      continue;
    }
    const int whole = __float2int_rn(units);
    bad = bad || fabsf(units - static_cast<float>(whole)) == 0.5f;
    sum += whole;
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  return __ballot_sync(kAllLanes, bad ? 1 : 0) != 0 ? -1 : sum;
}

/// fl(sum + p(i)) for i = 0 .. n - 1. ends [ceil(n / 256)]: the sum after each 256 entries, in
/// shared memory. `p(i)` >= 0 and finite. All threads of the block call it and get the sum.
template <typename P>
__device__ __forceinline__ float RunningSum(const P& p, int n, float* ends, RunningShared* s) {
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  if (threadIdx.x == 0) s->sum = 0.0f;
  for (int first = 0; first < n; first += kRunWarps * kRunEntries) {
    float mine[kRunEach];
#pragma unroll
    for (int i = 0; i < kRunEach; ++i) {
      const int at = first + warp * kRunEntries + i * kWarpLanes + lane;
      mine[i] = at < n ? p(at) : 0.0f;
    }
    if (threadIdx.x == 0) s->next = 0;
    for (;;) {
      __syncthreads();
      const int units = ChunkUnits(mine, UnitsOf(s->sum));
      if (lane == 0) s->units[warp] = units;
      __syncthreads();
      if (threadIdx.x == 0) {
        int at = s->next;
        for (; at < kRunWarps && s->units[at] >= 0; ++at) {
          const unsigned bits = __float_as_uint(s->sum);
          const long long all =
              ((bits & 0x7FFFFFu) | 0x800000u) + static_cast<long long>(s->units[at]);
          if (all >= kRunUnits) break;
          s->sum = __uint_as_float((bits & 0x7F800000u) | (static_cast<unsigned>(all) & 0x7FFFFFu));
          if (first + at * kRunEntries < n) ends[first / kRunEntries + at] = s->sum;
        }
        s->next = at;
      }
      __syncthreads();
      const int slow = s->next;
      if (slow == kRunWarps) break;
      // The next chunk leaves the binade or holds a tie: one by one.
      if (warp == slow) {
#pragma unroll
        for (int i = 0; i < kRunEach; ++i) s->entry[i * kWarpLanes + lane] = mine[i];
      }
      __syncthreads();
      if (threadIdx.x == 0) {
        float sum = s->sum;
        for (int i = 0; i < kRunEntries; ++i) sum = sum + s->entry[i];
        if (first + slow * kRunEntries < n) ends[first / kRunEntries + slow] = sum;
        s->sum = sum;
        s->next = slow + 1;
      }
      __syncthreads();
      if (s->next == kRunWarps) break;
    }
    __syncthreads();
  }
  const float sum = s->sum;
  __syncthreads();  // a second call begins anew
  return sum;
}

/// The first i whose running sum exceeds the threshold, or `otherwise`. Whole block.
template <typename P>
__device__ __forceinline__ int FirstAbove(const P& p, int n, const float* ends, float threshold,
                                          int otherwise, RunningShared* s) {
  const int chunks = (n + kRunEntries - 1) / kRunEntries;
  if (threadIdx.x == 0) {
    int low = 0, high = chunks;  // ends ascends
    while (low < high) {
      const int middle = (low + high) / 2;
      if (ends[middle] > threshold) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    s->next = low;
  }
  __syncthreads();
  const int chunk = s->next;
  if (chunk == chunks) return otherwise;
  const int at = chunk * kRunEntries + static_cast<int>(threadIdx.x);
  s->entry[threadIdx.x] = at < n ? p(at) : 0.0f;
  __syncthreads();
  if (threadIdx.x == 0) {
    float sum = chunk == 0 ? 0.0f : ends[chunk - 1];
    s->found = otherwise;
    for (int i = 0; i < kRunEntries; ++i) {
      sum = sum + s->entry[i];
      if (sum > threshold) {
        s->found = chunk * kRunEntries + i;
        break;
      }
    }
  }
  __syncthreads();
  return s->found;
}

}  // namespace temper::kernels::cuda
