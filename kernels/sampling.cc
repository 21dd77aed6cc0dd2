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
  float* x = nullptr;                // logits / temperature
  float* p = nullptr;                // Exp(x - lse)
  float* running = nullptr;          // running sum of p over the kept ids
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

float RunningSum(const float* p, const std::int32_t* ids, std::size_t n, float* running) {
  float sum = 0.0f;
  if (ids == nullptr) {
    for (std::size_t i = 0; i < n; ++i) running[i] = sum = sum + p[i];
  } else {
    for (std::size_t i = 0; i < n; ++i) running[i] = sum = sum + p[ids[i]];
  }
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
    const float mass = RunningSum(row.p, row.ids.data(), row.ids.size(), row.running);
    KeepTopP(row, params.top_p * mass);
  }
  if (params.min_p > 0.0f) {
    const std::int32_t largest = *std::min_element(row.ids.begin(), row.ids.end(), before);
    const float least = params.min_p * row.p[largest];
    std::erase_if(row.ids, [&](std::int32_t id) { return row.p[id] < least; });
  }
  std::sort(row.ids.begin(), row.ids.end());
}

}  // namespace

SampledToken SampleToken(const float* logits, int v, int valid, const SampleParams& params,
                         float u) {
  CheckParams(v, valid, params);
  thread_local Row row;
  thread_local ThreadPool serial(1);
  row.x = row.scratch.Reserve(std::int64_t{3} * v);
  row.p = row.x + v;
  row.running = row.p + v;
  const bool greedy = params.temperature == 0.0f;
  const float temperature = greedy ? 1.0f : params.temperature;
  float lse = 0.0f;
  LogSumExp(logits, v, 1, v, temperature, &lse, serial);
  ActiveVariant().probabilities(logits, valid, temperature, lse, row.x, row.p);

  const bool all =
      (params.top_k == 0 || params.top_k >= valid) && params.top_p == 1.0f && params.min_p == 0.0f;
  if (!all) Filter(row, valid, params);
  const std::size_t kept = all ? static_cast<std::size_t>(valid) : row.ids.size();
  const float mass = RunningSum(row.p, all ? nullptr : row.ids.data(), kept, row.running);

  SampledToken token;
  if (greedy || mass == 0.0f) {
    token.id = static_cast<std::int32_t>(std::max_element(row.x, row.x + valid) - row.x);
  } else {
    // Sums of non-negative numbers ascend, and u < 1 keeps the threshold below the last: one is
    // found.
    const float* found = std::upper_bound(row.running, row.running + kept, u * mass);
    const std::size_t i = std::min(static_cast<std::size_t>(found - row.running), kept - 1);
    token.id = all ? static_cast<std::int32_t>(i) : row.ids[i];
  }
  token.logp = row.x[token.id] - lse;
  token.log_kept_mass = Log(mass);
  token.logp_processed = token.logp - token.log_kept_mass;
  return token;
}

}  // namespace temper::kernels
