#include "kernels/sampling.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/math.h"
#include "kernels/parts.h"
#include "kernels/running_sum.h"
#include "kernels/variant.h"

namespace temper::kernels {
namespace {

void CheckParams(int v, int valid, const SampleParams& p) {
  if (valid < 1 || valid > v) {
    throw std::logic_error("SampleToken: " + std::to_string(valid) + " valid ids of " +
                           std::to_string(v) + "; at least one, at most all");
  }
  if (!(p.temperature >= 0.0f) || p.top_k < 0 || !(p.top_p > 0.0f && p.top_p <= 1.0f) ||
      !(p.min_p >= 0.0f && p.min_p <= 1.0f)) {
    throw std::logic_error(
        "SampleToken: needs temperature >= 0, top_k >= 0, 0 < top_p <= 1, 0 <= min_p <= 1");
  }
}

/// A row's numbers and the kept ids. Kept per thread: a decode step allocates nothing.
struct Row {
  Scratch scratch;
  float* x = nullptr;                // logits / temperature, with filters only
  float* p = nullptr;                // Exp(x - lse)
  float* running = nullptr;          // running sum of p over the kept ids, or after each chunk
  std::vector<float> largest;        // x of each chunk of kChunk
  std::vector<std::int32_t> ids;     // candidates, by filters
  std::vector<std::uint64_t> order;  // Rank() of the candidates
};

struct Descending {
  const float* x;
  bool operator()(std::int32_t a, std::int32_t b) const {
    return x[a] > x[b] || (x[a] == x[b] && a < b);
  }
};

/// Ascends where the logit descends, ties to the lower id: sorting these reads no other memory.
std::uint64_t Rank(float x, std::int32_t id) {
  // + 0 makes -0 equal to +0. Then the larger float has the larger pattern, negative ones mirrored.
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x + 0.0f);
  const std::uint32_t ascending = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<std::uint64_t>(~ascending) << 32 | static_cast<std::uint32_t>(id);
}

/// Leaves in row.ids the smallest leading part of the descending order whose mass reaches the
/// target.
void KeepTopP(Row& row, float target) {
  const std::size_t n = row.ids.size();
  row.order.resize(n);
  for (std::size_t i = 0; i < n; ++i) row.order[i] = Rank(row.x[row.ids[i]], row.ids[i]);
  const auto at = [&](std::size_t i) { return row.order.begin() + static_cast<std::ptrdiff_t>(i); };
  float sum = 0.0f;
  // Sorted piece by piece: the mass usually lies in the first few of a hundred thousand.
  for (std::size_t sorted = 0, step = 64; sorted < n; step *= 8) {
    const std::size_t end = std::min(n, sorted + step);
    if (end < n) std::nth_element(at(sorted), at(end), row.order.end());
    std::sort(at(sorted), at(end));
    for (; sorted < end; ++sorted) {
      const std::int32_t id = static_cast<std::int32_t>(row.order[sorted] & 0x7FFFFFFFu);
      row.ids[sorted] = id;
      sum = sum + row.p[id];
      if (sum >= target) {
        row.ids.resize(sorted + 1);
        return;
      }
    }
  }
}

float SumOf(const float* p, const std::vector<std::int32_t>& ids, float* running) {
  float sum = 0.0f;
  for (std::size_t i = 0; i < ids.size(); ++i) running[i] = sum = sum + p[ids[i]];
  return sum;
}

/// Applies top_k, top_p and min_p; row.ids ascends afterwards.
void Filter(Row& row, int valid, const SampleParams& params) {
  row.ids.resize(static_cast<std::size_t>(valid));
  std::iota(row.ids.begin(), row.ids.end(), 0);
  const Descending before{row.x};
  if (params.top_k > 0 && params.top_k < valid) {
    std::nth_element(row.ids.begin(), row.ids.begin() + (params.top_k - 1), row.ids.end(), before);
    row.ids.resize(static_cast<std::size_t>(params.top_k));
  }
  if (params.top_p < 1.0f) {
    if (params.top_k > 0) std::sort(row.ids.begin(), row.ids.end());
    const float mass = SumOf(row.p, row.ids, row.running);
    KeepTopP(row, params.top_p * mass);
  }
  if (params.min_p > 0.0f) {
    const std::int32_t largest = *std::min_element(row.ids.begin(), row.ids.end(), before);
    const float least = params.min_p * row.p[largest];
    std::erase_if(row.ids, [&](std::int32_t id) { return row.p[id] < least; });
  }
  std::sort(row.ids.begin(), row.ids.end());
}

/// The log-sum-exp of the row; keeps the chunks' largest x.
float Lse(const Variant& variant, const float* logits, int v, float temperature, Row& row) {
  row.largest.clear();
  MaxSum all{};
  for (int i = 0; i < v; i += kChunk) {
    const MaxSum chunk = variant.chunk_max_sum(logits + i, std::min(kChunk, v - i), temperature);
    all = i == 0 ? chunk : MergeChunks(all, chunk);
    row.largest.push_back(chunk.max);
  }
  return FinishLogSumExp(all);
}

/// First id below `valid` of the largest x = logits / temperature.
std::int32_t Largest(const float* logits, int valid, float temperature, const Row& row) {
  const int whole = valid / kChunk;  // chunks without an id that can't be picked
  float most = -std::numeric_limits<float>::infinity();
  for (int c = 0; c < whole; ++c) most = std::max(most, row.largest[static_cast<std::size_t>(c)]);
  for (int i = whole * kChunk; i < valid; ++i) most = std::max(most, logits[i] / temperature);
  int i = 0;
  while (i / kChunk < whole && row.largest[static_cast<std::size_t>(i / kChunk)] < most)
    i += kChunk;
  while (i < valid - 1 && logits[i] / temperature < most) ++i;
  return i;
}

/// Without filters: all of [0, valid) is kept.
std::int32_t PickOfAll(Row& row, int valid, float threshold) {
  const int chunks = (valid + kRunChunk - 1) / kRunChunk;
  const float* end = std::upper_bound(row.running, row.running + chunks, threshold);
  const int chunk = std::min(static_cast<int>(end - row.running), chunks - 1);
  float sum = chunk == 0 ? 0.0f : row.running[chunk - 1];
  const int last = std::min(valid, (chunk + 1) * kRunChunk) - 1;
  for (int i = chunk * kRunChunk; i < last; ++i) {
    sum = sum + row.p[i];
    if (sum > threshold) return i;
  }
  return last;
}

/// Of the kept ids; sums of non-negative numbers ascend, and u < 1 keeps the threshold below the
/// last: one is found.
std::int32_t PickOfKept(const Row& row, float threshold) {
  const std::size_t kept = row.ids.size();
  const float* found = std::upper_bound(row.running, row.running + kept, threshold);
  return row.ids[std::min(static_cast<std::size_t>(found - row.running), kept - 1)];
}

/// The numbers of a row after the filters.
struct Kept {
  float temperature, lse;
  bool all;  // no filter: [0, valid)
};

Kept Keep(const float* logits, int v, int valid, const SampleParams& params, Row& row) {
  CheckParams(v, valid, params);
  row.x = row.scratch.Reserve(std::int64_t{3} * v);
  row.p = row.x + v;
  row.running = row.p + v;
  const Variant& variant = ActiveVariant();
  CheckFloatingPointMode();
  Kept kept{};
  kept.temperature = params.temperature == 0.0f ? 1.0f : params.temperature;
  kept.lse = Lse(variant, logits, v, kept.temperature, row);
  kept.all =
      (params.top_k == 0 || params.top_k >= valid) && params.top_p == 1.0f && params.min_p == 0.0f;
  variant.probabilities(logits, valid, kept.temperature, kept.lse, kept.all ? nullptr : row.x,
                        row.p);
  if (!kept.all) Filter(row, valid, params);
  return kept;
}

}  // namespace

SampledToken SampleToken(const float* logits, int v, int valid, const SampleParams& params,
                         float u) {
  thread_local Row row;
  const auto [temperature, lse, all] = Keep(logits, v, valid, params, row);
  const float mass =
      all ? RunningSum(row.p, valid, row.running) : SumOf(row.p, row.ids, row.running);

  SampledToken token;
  if (params.temperature == 0.0f || mass == 0.0f) {
    token.id = Largest(logits, valid, temperature, row);
  } else {
    token.id = all ? PickOfAll(row, valid, u * mass) : PickOfKept(row, u * mass);
  }
  token.logp = logits[token.id] / temperature - lse;
  token.log_kept_mass = Log(mass);
  token.logp_processed = token.logp - token.log_kept_mass;
  return token;
}

void KeptIds(const float* logits, int v, int valid, const SampleParams& params,
             std::vector<std::int32_t>* kept) {
  thread_local Row row;
  if (Keep(logits, v, valid, params, row).all) {
    kept->resize(static_cast<std::size_t>(valid));
    std::iota(kept->begin(), kept->end(), 0);
  } else {
    *kept = row.ids;
  }
}

float LogKeptMass(const float* logits, float temperature, float lse,
                  const std::vector<std::int32_t>& kept) {
  float sum = 0.0f;
  for (const std::int32_t id : kept) sum = sum + Exp(logits[id] / temperature - lse);
  return Log(sum);
}

}  // namespace temper::kernels
