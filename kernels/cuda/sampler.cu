// SampleToken() of a row by one block: the CPU's uniform, its running sum, its token.
//
// A kept set is always { id < valid : rank(id) <= last, p(id) >= least }: top_k and top_p keep a
// leading part of one descending order, min_p cuts by probability. So no list of ids is stored: an
// id outside counts as p = 0, which changes no sum.
#include "kernels/cuda/device_math.h"
#include "kernels/cuda/running_sum.h"

namespace temper::kernels::cuda {
namespace {

constexpr int kPiece = 1024;  // ranks sorted at once
constexpr int kDigits = 256;

using Key = unsigned long long;

/// What the block shares.
struct Shared {
  RunningShared run;
  Key sorted[kPiece];
  int histogram[kDigits];
  Key key;     // a radix step's result
  int wanted;  // how many of the keys that share the prefix are still wanted
  int count;
  int id;
};

/// Ascends where x descends, ties to the lower id (kernels/sampling.cc).
__device__ __forceinline__ Key RankOf(float x, int id) {
  const unsigned bits = __float_as_uint(x + 0.0f);
  const unsigned ascending = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<Key>(~ascending) << 32 | static_cast<unsigned>(id);
}
__device__ __forceinline__ float LogitOf(Key rank) {
  const unsigned ascending = ~static_cast<unsigned>(rank >> 32);
  return __uint_as_float((ascending & 0x80000000u) != 0 ? ascending & 0x7FFFFFFFu : ~ascending);
}

/// A row's numbers and its kept set.
struct Row {
  const float* logits;
  int valid;
  float temperature, lse;
  Key last;
  float least;

  __device__ Key Rank(int id) const { return RankOf(logits[id] / temperature, id); }
  /// p of the id where it is kept, else 0.
  __device__ float operator()(int id) const {
    const float x = logits[id] / temperature, p = Exp(x - lse);
    return RankOf(x, id) <= last && !(p < least) ? p : 0.0f;
  }
};

/// The n-th smallest rank (n >= 1) above `after`, by eight digits from the highest; where fewer
/// remain, the largest. `first`: `after` itself counts too.
__device__ __forceinline__ Key NthRank(const Row& row, Key after, bool first, int n, Shared* s) {
  Key prefix = 0;
  if (threadIdx.x == 0) s->wanted = n;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < kDigits; i += kRunThreads) s->histogram[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < row.valid; i += kRunThreads) {
      const Key rank = row.Rank(i);
      if (rank > row.last || (!first && rank <= after)) continue;
      if (shift < 56 && (rank >> (shift + 8)) != (prefix >> (shift + 8))) continue;
      atomicAdd(&s->histogram[rank >> shift & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int left = s->wanted, digit = 0, lastest = 0;
      for (; digit < kDigits; ++digit) {
        if (s->histogram[digit] == 0) continue;
        lastest = digit;
        if (left <= s->histogram[digit]) break;
        left -= s->histogram[digit];
      }
      // Fewer remain than wanted: the largest digit, and there the largest again.
      if (digit == kDigits) {
        digit = lastest;
        left = s->histogram[digit];
      }
      s->wanted = left;
      s->key = prefix | static_cast<Key>(digit) << shift;
    }
    __syncthreads();
    prefix = s->key;
  }
  return prefix;
}

/// Ascending in place, padded by the largest key.
__device__ __forceinline__ void SortPiece(Key* key) {
  for (int size = 2; size <= kPiece; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < kPiece / 2; i += kRunThreads) {
        const int low = 2 * i - (i & (stride - 1)), high = low + stride;
        const bool up = (low & size) == 0;
        const Key a = key[low], b = key[high];
        if ((a > b) == up) {
          key[low] = b;
          key[high] = a;
        }
      }
    }
  }
  __syncthreads();
}

/// Narrows row.last to the shortest leading part whose mass reaches `target`.
__device__ __forceinline__ void KeepTopP(Row* row, float target, Shared* s) {
  Key after = 0;
  float sum = 0.0f;
  for (bool first = true;; first = false) {
    const Key nth = NthRank(*row, after, first, kPiece, s);
    for (int i = threadIdx.x; i < kPiece; i += kRunThreads) s->sorted[i] = ~0ull;
    if (threadIdx.x == 0) s->count = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < row->valid; i += kRunThreads) {
      const Key rank = row->Rank(i);
      // Their order is settled by sorting.
      if (rank <= nth && (first || rank > after)) s->sorted[atomicAdd(&s->count, 1)] = rank;
    }
    SortPiece(s->sorted);
    if (threadIdx.x == 0) {
      s->id = 0;
      for (int i = 0; i < s->count && s->id == 0; ++i) {
        sum = sum + Exp(LogitOf(s->sorted[i]) - row->lse);
        if (sum >= target) {
          s->key = s->sorted[i];
          s->id = 1;
        }
      }
      if (s->id == 0 && s->count < kPiece) s->id = 2;  // all are needed
    }
    __syncthreads();
    const int found = s->id;
    if (found == 1) row->last = s->key;
    if (found != 0) return;
    after = nth;
  }
}

/// Smallest rank of [0, valid): the first id of the largest logit.
__device__ __forceinline__ Key LargestRank(const Row& row, Shared* s) {
  Key best = ~0ull;
  for (int i = threadIdx.x; i < row.valid; i += kRunThreads) {
    const Key rank = row.Rank(i);
    best = rank < best ? rank : best;
  }
  s->sorted[threadIdx.x] = best;
  for (int half = kRunThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half &&
        s->sorted[threadIdx.x + half] < s->sorted[threadIdx.x]) {
      s->sorted[threadIdx.x] = s->sorted[threadIdx.x + half];
    }
  }
  __syncthreads();
  return s->sorted[0];
}

__device__ float Uniform(const SampleRow& at) {
  unsigned c[4] = {at.position, at.sample, static_cast<unsigned>(at.group),
                   static_cast<unsigned>(at.group >> 32)};
  unsigned key[2] = {static_cast<unsigned>(at.seed), static_cast<unsigned>(at.seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const unsigned low_a = 0xD2511F53u * c[0], high_a = __umulhi(0xD2511F53u, c[0]);
    const unsigned low_b = 0xCD9E8D57u * c[2], high_b = __umulhi(0xCD9E8D57u, c[2]);
    c[0] = high_b ^ c[1] ^ key[0];
    c[2] = high_a ^ c[3] ^ key[1];
    c[1] = low_b;
    c[3] = low_a;
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return static_cast<float>(c[0] >> 8) * 0x1p-24f;
}

__device__ __forceinline__ void Filter(Row* row, const SampleRow& at, Key largest, float* ends,
                                       Shared* s) {
  if (at.top_k > 0 && at.top_k < row->valid) row->last = NthRank(*row, 0, true, at.top_k, s);
  if (at.top_p < 1.0f) {
    const float mass = RunningSum(*row, row->valid, ends, &s->run);
    KeepTopP(row, at.top_p * mass, s);
  }
  if (at.min_p > 0.0f) row->least = at.min_p * Exp(LogitOf(largest) - row->lse);
}

__global__ void __launch_bounds__(kRunThreads, 1)
    SampleKernel(const float* logits, std::int64_t ld, int valid, const float* lse,
                 const SampleRow* rows, SampledRow* out) {
  __shared__ Shared s;
  float* ends = DynamicShared<float>();  // [ceil(valid/256)]
  const SampleRow at = rows[blockIdx.x];
  const std::int64_t r = at.row < 0 ? static_cast<std::int64_t>(blockIdx.x) : at.row;
  Row row{logits + r * ld, valid, at.temperature == 0.0f ? 1.0f : at.temperature,
          lse[r],          ~0ull, 0.0f};
  const Key largest = LargestRank(row, &s);
  Filter(&row, at, largest, ends, &s);
  const float mass = RunningSum(row, valid, ends, &s.run);
  int id = static_cast<int>(largest & 0x7FFFFFFFu);
  if (at.temperature != 0.0f && mass != 0.0f) {
    // u < 1 and a normal mass: u * mass < mass, so that one is always found.
    id = FirstAbove(row, valid, ends, Uniform(at) * mass, id, &s.run);
  }
  if (threadIdx.x != 0) return;
  const float logp = row.logits[id] / row.temperature - row.lse, kept = Log(mass);
  out[blockIdx.x] = {id, logp, logp - kept, kept};
}

}  // namespace

void Sample(const float* logits, std::int64_t ld, int m, int v, int valid, const float* lse,
            const SampleRow* rows, SampledRow* out, cudaStream_t stream) {
  if (m < 0 || valid < 1 || valid > v) {
    throw std::logic_error("Sample: needs m >= 0 and 1 <= valid <= v");
  }
  const std::size_t ends = std::size_t{4} * ((valid + kRunEntries - 1) / kRunEntries);
  Launch("Sample", SampleKernel, GridFor(m, 1, "Sample"), kRunThreads, ends, stream, logits, ld,
         valid, lse, rows, out);
}

}  // namespace temper::kernels::cuda
