// A warp a token: scores, groups, the best experts, weights.
#include "kernels/cuda/device_math.h"
#include "kernels/cuda/launch.h"

namespace temper::kernels::cuda {
namespace {

__device__ __forceinline__ float Lowest() { return -__uint_as_float(0x7F800000u); }

/// Marks the `count` largest of value[0 .. n), lower index first among equals; -inf and NaN last.
/// The lanes may just have written value.
__device__ void MarkLargest(const float* value, int n, int count, unsigned char* mark) {
  const int lane = threadIdx.x;
  for (int i = lane; i < n; i += kWarpLanes) mark[i] = 0;
  __syncwarp();
  for (int c = 0; c < count; ++c) {
    float best = Lowest();
    int at = n, open = n;  // the best of what is above -inf, and the first of all
    for (int i = lane; i < n; i += kWarpLanes) {
      if (mark[i] != 0) continue;
      if (value[i] > best) {
        best = value[i];
        at = i;
      }
      if (open == n) open = i;
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(kAllLanes, best, step);
      const int other_at = __shfl_xor_sync(kAllLanes, at, step);
      const int other_open = __shfl_xor_sync(kAllLanes, open, step);
      if (other > best || (other == best && other_at < at)) {
        best = other;
        at = other_at;
      }
      open = other_open < open ? other_open : open;
    }
    if (lane == 0) mark[at < n ? at : open] = 1;
    __syncwarp();
  }
}

__device__ float GroupScore(RouterMethod method, const float* b, int n) {
  if (n == 1) return b[0];
  float first = Lowest(), second = Lowest();
  if (method == RouterMethod::kGroupLimitedGreedy) {
    first = b[0];
    for (int i = 1; i < n; ++i) first = first < b[i] ? b[i] : first;
    return first;
  }
  for (int i = 0; i < n; ++i) {
    const bool above = b[i] > first;
    second = above ? first : (b[i] > second ? b[i] : second);
    first = above ? b[i] : first;
  }
  return first + second;
}

/// s [experts]: RouterScores().
__device__ void Scores(RouterMethod method, const float* logits, int experts, float* s) {
  const int lane = threadIdx.x;
  if (method == RouterMethod::kNoauxTc) {
    for (int i = lane; i < experts; i += kWarpLanes) s[i] = Sigmoid(logits[i]);
    __syncwarp();
    return;
  }
  float max = Lowest();
  for (int i = lane; i < experts; i += kWarpLanes) max = max < logits[i] ? logits[i] : max;
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, max, step);
    max = max < other ? other : max;
  }
  for (int i = lane; i < experts; i += kWarpLanes) s[i] = Exp(logits[i] - max);
  __syncwarp();
  // Ascending: every lane adds all of it, which costs what one lane would.
  float sum = 0.0f;
  for (int i = 0; i < experts; ++i) sum = sum + s[i];
  __syncwarp();
  for (int i = lane; i < experts; i += kWarpLanes) s[i] = s[i] / sum;
  __syncwarp();
}

/// Lane 0 writes the marked experts, ascending.
__device__ void Choose(const RouterShape& shape, float* b, float* group, unsigned char* mark,
                       std::int32_t* ids) {
  const int lane = threadIdx.x, size = shape.experts / shape.groups;
  if (shape.topk_groups < shape.groups && shape.method != RouterMethod::kGreedy) {
    for (int g = lane; g < shape.groups; g += kWarpLanes) {
      group[g] = GroupScore(shape.method, b + g * size, size);
    }
    MarkLargest(group, shape.groups, shape.topk_groups, mark);
    for (int i = lane; i < shape.experts; i += kWarpLanes) {
      if (mark[i / size] == 0) b[i] = Lowest();
    }
    __syncwarp();
  }
  MarkLargest(b, shape.experts, shape.top_k, mark);
  if (lane != 0) return;
  for (int i = 0; i < shape.experts; ++i) {
    if (mark[i] != 0) *ids++ = i;
  }
}

__global__ void __launch_bounds__(kWarpLanes)
    RouteKernel(const float* logits, std::int64_t ld, const float* bias, RouterShape shape,
                const std::int32_t* forced, std::int32_t* ids, float* weight) {
  const int lane = threadIdx.x, k = shape.top_k;
  const std::int64_t r = blockIdx.x;
  float* s = DynamicShared<float>();                                             // [experts]
  float* b = s + shape.experts;                                                  // [experts]
  float* group = b + shape.experts;                                              // [groups]
  unsigned char* mark = reinterpret_cast<unsigned char*>(group + shape.groups);  // [experts]
  Scores(shape.method, logits + r * ld, shape.experts, s);
  std::int32_t* chosen = ids + r * k;
  if (forced == nullptr) {
    const bool biased = shape.method == RouterMethod::kNoauxTc;
    for (int i = lane; i < shape.experts; i += kWarpLanes) b[i] = biased ? s[i] + bias[i] : s[i];
    __syncwarp();
    Choose(shape, b, group, mark, chosen);
  }
  if (lane != 0) return;
  const auto score = [&](int j) {
    if (forced != nullptr) chosen[j] = forced[r * k + j];
    const std::int32_t id = chosen[j];
    return id >= 0 && id < shape.experts ? s[id] : __uint_as_float(0x7FC00000u);
  };
  float sum = 0.0f;
  for (int j = 0; j < k; ++j) sum = sum + score(j);
  sum = sum + 1e-20f;
  for (int j = 0; j < k; ++j) {
    const float w = shape.normalize ? score(j) / sum : score(j);
    weight[r * k + j] = w * shape.scale;
  }
}

}  // namespace

void Route(const float* logits, std::int64_t ld, const float* bias, const RouterShape& s, int m,
           const std::int32_t* forced, std::int32_t* ids, float* weight, cudaStream_t stream) {
  if (s.experts < 1 || s.groups < 1 || s.experts % s.groups != 0 || s.topk_groups < 1 ||
      s.topk_groups > s.groups || s.top_k < 1 || s.top_k > s.experts / s.groups * s.topk_groups) {
    throw std::logic_error("Route: groups must divide experts and the kept ones hold top_k");
  }
  const std::size_t shared = std::size_t{9} * s.experts + std::size_t{4} * s.groups;
  Launch("Route", RouteKernel, GridFor(m, 1, "Route"), kWarpLanes, shared, stream, logits, ld, bias,
         s, forced, ids, weight);
}

}  // namespace temper::kernels::cuda
