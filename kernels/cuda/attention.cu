// Attention in the canonical order, one (row, head) a block: the CPU's bits, for debugging and for
// one numerics id across devices. The tensor cores' kernel is mla_tensor.cu.
#include "kernels/cuda/device_math.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/pages.h"
#include "kernels/variant.h"

namespace temper::kernels::cuda {
namespace {

constexpr int kThreads = kSplit;  // a key each for the scores
constexpr int kTile = 32;         // dimensions of a tile of keys
constexpr int kLanes = 16;

struct Shared {
  float tile[kSplit][kTile + 1];  // + 1: a column's entries lie in different banks
  float p[kSplit];
  const unsigned char* key[kSplit];
  float reduce[kThreads / kWarpLanes];
  float max, sum;
};

/// scale * <q, key_j> of the caller's key, in the order of Linear(). Keys past n count as 0.
__device__ float Score(const AttentionArgs& a, const float* q, int n, Shared* s) {
  const int dim = a.cache.latent + a.cache.rope, j = threadIdx.x;
  float score = 0.0f;
  for (int block = 0; block < dim; block += kBlock) {
    float sum = 0.0f;
    const int end = min(block + kBlock, dim);
    for (int d0 = block; d0 < end; d0 += kTile) {
      const int width = min(kTile, end - d0);
      __syncthreads();
      for (int i = threadIdx.x; i < kSplit * kTile; i += kThreads) {
        const int key = i / kTile, d = i % kTile;
        const bool inside = key < n && d < width;
        s->tile[key][d] =
            inside ? CacheValue(a.cache.type, s->key[key], a.cache.latent, d0 + d) : 0.0f;
      }
      __syncthreads();
      for (int d = 0; d < width; ++d) sum = fmaf(s->tile[j][d], q[d0 + d], sum);
    }
    score = score + sum;
  }
  return a.scale * score;
}

/// Numerators into s->p; s->max and s->sum of the split.
__device__ void Softmax(float score, int n, Shared* s) {
  const int j = threadIdx.x, warp = j / kWarpLanes;
  const float lowest = -__uint_as_float(0x7F800000u);
  float max = j < n ? score : lowest;
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, max, step);
    max = max < other ? other : max;
  }
  if (j % kWarpLanes == 0) s->reduce[warp] = max;
  __syncthreads();
  for (int w = 0; w < kThreads / kWarpLanes; ++w) max = max < s->reduce[w] ? s->reduce[w] : max;
  s->p[j] = j < n ? Exp(score - max) : 0.0f;
  __syncthreads();
  if (j >= kWarpLanes) return;
  float sum = 0.0f;
  if (j < kLanes) {
    for (int i = j; i < n; i += kLanes) sum = sum + s->p[i];
  }
#pragma unroll
  for (int half = 8; half >= 1; half /= 2) sum = sum + __shfl_down_sync(kAllLanes, sum, half);
  if (j == 0) {
    s->max = max;
    s->sum = sum;
  }
}

/// sum_j p_j key_j[d] over the split, in the order of Linear() with the keys as inputs.
__device__ float Value(const AttentionArgs& a, int d, int n, const Shared* s) {
  float value = 0.0f;
  for (int block = 0; block < n; block += kBlock) {
    float sum = 0.0f;
    for (int j = block; j < min(block + kBlock, n); ++j) {
      sum = fmaf(CacheValue(a.cache.type, s->key[j], a.cache.latent, d), s->p[j], sum);
    }
    value = value + sum;
  }
  return value;
}

__global__ void __launch_bounds__(kThreads) AttentionKernel(AttentionArgs a) {
  __shared__ Shared s;
  float* q = DynamicShared<float>();  // [latent + rope]
  const int latent = a.cache.latent, dim = latent + a.cache.rope;
  float* o = q + dim;  // [latent]
  const int row = static_cast<int>(blockIdx.x) / a.heads;
  const std::int64_t pair = blockIdx.x;
  for (int d = threadIdx.x; d < dim; d += kThreads) q[d] = a.q[pair * dim + d];
  const int count = a.count[row];
  float all_max = 0.0f, all_sum = 0.0f;
  for (int first = 0; first < count; first += kSplit) {
    const int n = min(kSplit, count - first);
    if (static_cast<int>(threadIdx.x) < n) {
      s.key[threadIdx.x] = KeyAt(a, row, first + static_cast<int>(threadIdx.x));
    }
    const float score = Score(a, q, n, &s);
    Softmax(score, n, &s);
    __syncthreads();
    const float max = all_max < s.max ? s.max : all_max;
    const float e_old = first == 0 ? 0.0f : Exp(all_max - max);
    const float e_new = first == 0 ? 0.0f : Exp(s.max - max);
    for (int d = threadIdx.x; d < latent; d += kThreads) {
      const float part = Value(a, d, n, &s);
      o[d] = first == 0 ? part : fmaf(part, e_new, o[d] * e_old);
    }
    all_sum = first == 0 ? s.sum : fmaf(s.sum, e_new, all_sum * e_old);
    all_max = first == 0 ? s.max : max;
    __syncthreads();
  }
  for (int d = threadIdx.x; d < latent; d += kThreads) a.o[pair * latent + d] = o[d] / all_sum;
}

}  // namespace

void CheckAttention(const AttentionArgs& a) {
  if (a.m < 0 || a.heads < 1 || a.cache.latent < 1 || a.cache.rope < 0 || a.cache.page_tokens < 1 ||
      a.cache.token_bytes % 16 != 0 || a.cache.offset % 16 != 0) {
    throw std::logic_error(
        "MlaAttention: needs m >= 0, heads >= 1, latent >= 1, rope >= 0, page_tokens >= 1 and "
        "16-byte aligned rows");
  }
}

void MlaAttention(const AttentionArgs& a, cudaStream_t stream) {
  CheckAttention(a);
  const std::size_t shared = std::size_t{4} * (2 * a.cache.latent + a.cache.rope);
  Launch("MlaAttention", AttentionKernel, GridFor(std::int64_t{a.m} * a.heads, 1, "MlaAttention"),
         kThreads, shared, stream, a);
}

}  // namespace temper::kernels::cuda
