// MLA on tensor cores, absorbed form, 512 + 64: one block takes heads of one row and a split of 256
// keys, in tiles of 32 that arrive by cp.async while the one before is used.
//
// Per tile: S = Q K^T (warps share the keys' fragments), the softmax's step for each head, then
// O = alpha O + P V with the tile's own latent part as V. Decode writes each split's O, maximum and
// sum; prefill merges them in place by the same operations in the same order.
#include "kernels/cuda/device_math.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/pages.h"
#include "kernels/cuda/tensor.h"
#include "kernels/variant.h"

namespace temper::kernels::cuda {
namespace {

constexpr int kLatent = 512, kRope = 64, kDim = kLatent + kRope;
constexpr int kWarps = 8, kThreads = kWarps * kWarpLanes;
constexpr int kKeys = 32;                 // a tile
constexpr int kStride = kDim + 8;         // BF16 elements; an odd number of 16 bytes: no conflicts
constexpr int kScoreStride = kKeys + 1;   // floats
constexpr int kWeightStride = kKeys + 8;  // BF16 elements
constexpr int kRecord = kLatent + 2;      // floats of a split's result: O, maximum, sum
constexpr int kChunk16 = 16;              // bytes of an asynchronous copy
constexpr int kFp8Bytes = 656;
static_assert(kSplit % kKeys == 0);

template <CacheType type>
constexpr int kRowBytes = type == CacheType::kFp8 ? kFp8Bytes : 2 * kDim;

/// Shared memory of a block that takes kTiles * 16 heads.
template <CacheType type, int kTiles>
struct Shared {
  static constexpr int kHeads = 16 * kTiles;
  static constexpr bool kStaged = type == CacheType::kFp8;  // codes first, then BF16
  alignas(16) std::uint16_t q[kHeads][kStride];
  alignas(16) std::uint16_t keys[kStaged ? 1 : 2][kKeys][kStride];
  alignas(16) unsigned char stage[kStaged ? 2 : 1][kStaged ? kKeys * kFp8Bytes : 16];
  alignas(16) std::uint16_t weight[kHeads][kWeightStride];
  float score[kHeads][kScoreStride];
  float max[kHeads], sum[kHeads], alpha[kHeads];
  float all_max[kHeads], all_sum[kHeads], e_old[kHeads], e_new[kHeads];  // prefill's merge
};

/// A block's place.
struct Place {
  int row, head0, heads, first, count;  // heads: how many of the tile exist; keys [first, count)
};

template <CacheType type, int kTiles>
__device__ void LoadQueries(const AttentionArgs& a, const Place& at, Shared<type, kTiles>* s) {
  const float* q = a.q + (std::int64_t{at.row} * a.heads + at.head0) * kDim;
  for (int i = threadIdx.x; i < 16 * kTiles * kDim; i += kThreads) {
    const int head = i / kDim;
    s->q[head][i % kDim] = head < at.heads ? ToBf16(q[i]) : std::uint16_t{0};
  }
}

/// Starts the copies of the tile at `first`; keys from `count` on become zeros.
template <CacheType type, int kTiles>
__device__ void StartTile(const AttentionArgs& a, const Place& at, int first, int buffer,
                          Shared<type, kTiles>* s) {
  constexpr int kChunks = kRowBytes<type> / kChunk16;
  for (int i = threadIdx.x; i < kKeys * kChunks; i += kThreads) {
    const int key = i / kChunks, chunk = i % kChunks, position = first + key;
    const bool inside = position < at.count;
    const unsigned char* from = KeyAt(a, at.row, inside ? position : at.first);
    void* to = Shared<type, kTiles>::kStaged
                   ? static_cast<void*>(s->stage[buffer] + key * kFp8Bytes + chunk * kChunk16)
                   : static_cast<void*>(&s->keys[buffer][key][chunk * kChunk16 / 2]);
    CopyAsync(to, from + chunk * kChunk16, inside ? kChunk16 : 0);
  }
  CopyCommit();
}

/// FP8 rows become BF16 ones: exact, the scales are powers of two.
template <int kTiles>
__device__ void Decode(int buffer, Shared<CacheType::kFp8, kTiles>* s) {
  constexpr int kScales = kLatent, kRopeAt = kLatent + 4 * (kLatent / kBlock);
  for (int i = threadIdx.x; i < kKeys * (kDim / 4); i += kThreads) {
    const int key = i / (kDim / 4), d = i % (kDim / 4) * 4;
    const unsigned char* row = s->stage[buffer] + key * kFp8Bytes;
    std::uint16_t* to = &s->keys[0][key][d];
    if (d >= kLatent) {
      *reinterpret_cast<uint2*>(to) =
          *reinterpret_cast<const uint2*>(row + kRopeAt + 2 * (d - kLatent));
      continue;
    }
    const float scale = reinterpret_cast<const float*>(row + kScales)[d / kBlock] * kFp8Shift;
    const unsigned codes = *reinterpret_cast<const unsigned*>(row + d);
#pragma unroll
    for (int j = 0; j < 4; ++j) to[j] = ToBf16(FromE4m3Shifted(codes >> (8 * j) & 255u) * scale);
  }
}

/// Scores of the tile: each warp whole fragments of 16 heads x 8 keys.
template <CacheType type, int kTiles>
__device__ void Scores(const AttentionArgs& a, int first, int count, int buffer,
                       Shared<type, kTiles>* s) {
  constexpr int kFragments = kTiles * (kKeys / 8), kEach = kFragments > kWarps ? 2 : 1;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  if (warp * kEach >= kFragments) return;
  const int tile = warp * kEach / (kKeys / 8), key0 = warp * kEach % (kKeys / 8) * 8;
  const std::uint16_t* q = &s->q[tile * 16 + lane % 16][lane / 16 * 8];
  // Four matrices a load: eight keys, 32 dimensions.
  const std::uint16_t* k = &s->keys[buffer][key0 + lane % 8][lane / 8 * 8];
  float sum[kEach][4] = {};
#pragma unroll 2
  for (int d = 0; d < kDim; d += 32) {
    std::uint32_t low[4], high[4];
    LoadMatrix(low, q + d);
    LoadMatrix(high, q + d + 16);
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      std::uint32_t b[4];
      LoadMatrix(b, k + e * 8 * kStride + d);
      MmaBf16(sum[e], low, {b[0], b[1]});
      MmaBf16(sum[e], high, {b[2], b[3]});
    }
  }
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int head = tile * 16 + lane / 4 + 8 * (i / 2),
                key = key0 + 8 * e + lane % 4 * 2 + i % 2;
      const bool visible = first + key < count;
      s->score[head][key] = visible ? a.scale * sum[e][i] : -__uint_as_float(0x7F800000u);
    }
  }
}

/// One tile's step of each head's softmax: a warp a head, a lane a key.
template <CacheType type, int kTiles>
__device__ void SoftmaxStep(bool first_tile, Shared<type, kTiles>* s) {
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  for (int head = warp; head < 16 * kTiles; head += kWarps) {
    const float score = s->score[head][lane];
    float max = score;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(kAllLanes, max, step);
      max = max < other ? other : max;
    }
    const float before = first_tile ? max : s->max[head];
    max = max < before ? before : max;
    const std::uint16_t bits = ToBf16(Exp(score - max));
    s->weight[head][lane] = bits;
    float sum = FromBf16(bits);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum = sum + __shfl_xor_sync(kAllLanes, sum, step);
    const float alpha = Exp(before - max);
    __syncwarp();
    if (lane == 0) {
      s->sum[head] = first_tile ? sum : fmaf(s->sum[head], alpha, sum);
      s->max[head] = max;
      s->alpha[head] = first_tile ? 0.0f : alpha;
    }
  }
}

/// O = alpha O + P V: a warp's 16 heads and kColumns latent columns.
template <CacheType type, int kTiles, int kColumns>
__device__ void Values(int buffer, const Shared<type, kTiles>* s, float (&o)[kColumns / 8][4]) {
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const int tile = warp % kTiles, column0 = warp / kTiles * kColumns;
  const float alpha[2] = {s->alpha[tile * 16 + lane / 4], s->alpha[tile * 16 + lane / 4 + 8]};
#pragma unroll
  for (int c = 0; c < kColumns / 8; ++c) {
#pragma unroll
    for (int i = 0; i < 4; ++i) o[c][i] = o[c][i] * alpha[i / 2];
  }
#pragma unroll
  for (int key = 0; key < kKeys; key += 16) {
    std::uint32_t p[4];
    LoadMatrix(p, &s->weight[tile * 16 + lane % 16][key + lane / 16 * 8]);
#pragma unroll
    for (int c = 0; c < kColumns / 8; c += 2) {
      // Keys in rows: transposed they are the column operand; two fragments of 8 columns.
      std::uint32_t v[4];
      LoadMatrixTransposed(v, &s->keys[buffer][key + lane % 16][column0 + 8 * c + lane / 16 * 8]);
      MmaBf16(o[c], p, {v[0], v[1]});
      MmaBf16(o[c + 1], p, {v[2], v[3]});
    }
  }
}

/// One split from at.first on: o, s->max and s->sum.
template <CacheType type, int kTiles, int kColumns>
__device__ void Split(const AttentionArgs& a, const Place& at, Shared<type, kTiles>* s,
                      float (&o)[kColumns / 8][4]) {
  const int end = min(at.first + kSplit, at.count);
#pragma unroll
  for (int c = 0; c < kColumns / 8; ++c) {
#pragma unroll
    for (int i = 0; i < 4; ++i) o[c][i] = 0.0f;
  }
  StartTile(a, at, at.first, 0, s);
  int buffer = 0;
  for (int first = at.first; first < end; first += kKeys, buffer ^= 1) {
    // An empty group keeps the count of groups even at the last tile.
    if (first + kKeys < end) {
      StartTile(a, at, first + kKeys, buffer ^ 1, s);
    } else {
      CopyCommit();
    }
    CopyWait<1>();
    __syncthreads();
    int keys = buffer;
    if constexpr (type == CacheType::kFp8) {
      Decode(buffer, s);
      keys = 0;
      __syncthreads();
    }
    Scores(a, first, at.count, keys, s);
    __syncthreads();
    SoftmaxStep(first == at.first, s);
    __syncthreads();
    Values<type, kTiles, kColumns>(keys, s, o);
    __syncthreads();  // the tile's buffers are free
  }
}

/// Calls body(head of the tile, column, o) for each of the caller's results.
template <int kTiles, int kColumns, typename Body>
__device__ __forceinline__ void ForResults(const float (&o)[kColumns / 8][4], const Body& body) {
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
#pragma unroll
  for (int c = 0; c < kColumns / 8; ++c) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      body(warp % kTiles * 16 + lane / 4 + 8 * (i / 2),
           warp / kTiles * kColumns + 8 * c + lane % 4 * 2 + i % 2, o[c][i]);
    }
  }
}

// One block: a row's heads [head0, head0 + 16 kTiles), one split.
template <CacheType type, int kTiles>
__global__ void __launch_bounds__(kThreads, 1)
    SplitKernel(AttentionArgs a, int splits, float* scratch) {
  constexpr int kColumns = kLatent * kTiles / kWarps;
  auto* s = DynamicShared<Shared<type, kTiles>>();
  const int head_tiles = (a.heads + 16 * kTiles - 1) / (16 * kTiles);
  const int head0 = static_cast<int>(blockIdx.x % head_tiles) * 16 * kTiles;
  const int split = static_cast<int>(blockIdx.x / head_tiles % splits);
  const int row = static_cast<int>(blockIdx.x / head_tiles / splits);
  const Place at{row, head0, min(16 * kTiles, a.heads - head0), split * kSplit, a.count[row]};
  if (at.first >= at.count) return;  // the whole block
  LoadQueries(a, at, s);
  float o[kColumns / 8][4];
  Split<type, kTiles, kColumns>(a, at, s, o);
  float* record = scratch + ((std::int64_t{row} * splits + split) * a.heads + head0) * kRecord;
  ForResults<kTiles, kColumns>(o, [&](int head, int column, float value) {
    if (head < at.heads) record[std::int64_t{head} * kRecord + column] = value;
  });
  const int head = threadIdx.x;
  if (head >= at.heads) return;
  record[std::int64_t{head} * kRecord + kLatent] = s->max[head];
  record[std::int64_t{head} * kRecord + kLatent + 1] = s->sum[head];
}

// One block: a row's head; the splits ascending.
__global__ void __launch_bounds__(kThreads)
    MergeKernel(AttentionArgs a, int splits, const float* scratch) {
  const int row = static_cast<int>(blockIdx.x) / a.heads,
            head = static_cast<int>(blockIdx.x) % a.heads;
  const int used = min(splits, (a.count[row] + kSplit - 1) / kSplit);
  const std::int64_t step = std::int64_t{a.heads} * kRecord;
  const float* first = scratch + std::int64_t{row} * splits * step + std::int64_t{head} * kRecord;
  for (int d = threadIdx.x; d < kLatent; d += kThreads) {
    float o = first[d], max = first[kLatent], sum = first[kLatent + 1];
    for (int split = 1; split < used; ++split) {
      const float* next = first + split * step;
      const float most = max < next[kLatent] ? next[kLatent] : max;
      const float e_old = Exp(max - most), e_new = Exp(next[kLatent] - most);
      o = fmaf(next[d], e_new, o * e_old);
      sum = fmaf(next[kLatent + 1], e_new, sum * e_old);
      max = most;
    }
    a.o[std::int64_t{blockIdx.x} * kLatent + d] = o / sum;
  }
}

/// Merges a split's maximum and sum into those of the row; e_old and e_new for its values.
template <CacheType type, int kTiles>
__device__ void MergeStatistics(bool first_split, Shared<type, kTiles>* s) {
  const int head = threadIdx.x;
  if (head >= 16 * kTiles) return;
  const float before = first_split ? s->max[head] : s->all_max[head];
  const float most = before < s->max[head] ? s->max[head] : before;
  const float e_old = Exp(before - most), e_new = Exp(s->max[head] - most);
  s->all_sum[head] =
      first_split ? s->sum[head] : fmaf(s->sum[head], e_new, s->all_sum[head] * e_old);
  s->all_max[head] = most;
  s->e_old[head] = e_old;
  s->e_new[head] = e_new;
}

// One block: a row's heads, all splits. o holds the merged values between splits: each thread reads
// what it wrote itself.
template <CacheType type, int kTiles>
__global__ void __launch_bounds__(kThreads, 1) RowKernel(AttentionArgs a) {
  constexpr int kColumns = kLatent * kTiles / kWarps;
  auto* s = DynamicShared<Shared<type, kTiles>>();
  const int head_tiles = (a.heads + 16 * kTiles - 1) / (16 * kTiles);
  const int head0 = static_cast<int>(blockIdx.x % head_tiles) * 16 * kTiles;
  const int row = static_cast<int>(blockIdx.x / head_tiles), count = a.count[row];
  Place at{row, head0, min(16 * kTiles, a.heads - head0), 0, count};
  LoadQueries(a, at, s);
  float* out = a.o + (std::int64_t{row} * a.heads + head0) * kLatent;
  for (; at.first < count; at.first += kSplit) {
    float o[kColumns / 8][4];
    Split<type, kTiles, kColumns>(a, at, s, o);
    MergeStatistics(at.first == 0, s);
    __syncthreads();
    const bool first = at.first == 0, last = at.first + kSplit >= count;
    ForResults<kTiles, kColumns>(o, [&](int head, int column, float value) {
      if (head >= at.heads) return;
      float* to = out + std::int64_t{head} * kLatent + column;
      const float merged = first ? value : fmaf(value, s->e_new[head], *to * s->e_old[head]);
      *to = last ? merged / s->all_sum[head] : merged;
    });
  }
}

template <CacheType type, int kTiles>
void LaunchTiles(const AttentionArgs& a, int splits, float* scratch, cudaStream_t stream) {
  constexpr const char* kName = "MlaAttentionTensor";
  const std::int64_t blocks = std::int64_t{a.m} * ((a.heads + 16 * kTiles - 1) / (16 * kTiles));
  const std::size_t shared = sizeof(Shared<type, kTiles>);
  if (splits == 0) {
    return Launch(kName, RowKernel<type, kTiles>, GridFor(blocks, 1, kName), kThreads, shared,
                  stream, a);
  }
  Launch(kName, SplitKernel<type, kTiles>, GridFor(blocks * splits, 1, kName), kThreads, shared,
         stream, a, splits, scratch);
  Launch("MlaAttentionTensor merge", MergeKernel, GridFor(std::int64_t{a.m} * a.heads, 1, kName),
         kThreads, 0, stream, a, splits, scratch);
}

}  // namespace

std::int64_t AttentionScratch(int m, int heads, int splits) {
  return std::int64_t{m} * heads * splits * kRecord;
}

void MlaAttentionTensor(const AttentionArgs& a, int splits, float* scratch, cudaStream_t stream) {
  CheckAttention(a);
  if (a.cache.latent != kLatent || a.cache.rope != kRope || a.cache.type == CacheType::kF32 ||
      splits < 0) {
    throw std::logic_error("MlaAttentionTensor: 512 + 64 in BF16 or FP8, splits >= 0");
  }
  const bool fp8 = a.cache.type == CacheType::kFp8;
  // By the model's heads alone: a row's bits do not depend on it, its speed does.
  if (a.heads <= 16) {
    return fp8 ? LaunchTiles<CacheType::kFp8, 1>(a, splits, scratch, stream)
               : LaunchTiles<CacheType::kBf16, 1>(a, splits, scratch, stream);
  }
  fp8 ? LaunchTiles<CacheType::kFp8, 4>(a, splits, scratch, stream)
      : LaunchTiles<CacheType::kBf16, 4>(a, splits, scratch, stream);
}

}  // namespace temper::kernels::cuda
