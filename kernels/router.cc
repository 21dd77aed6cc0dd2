#include "kernels/router.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "kernels/parts.h"
#include "kernels/variant.h"

namespace temper::kernels {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

void Check(const RouterShape& s) {
  if (s.experts < 1 || s.groups < 1 || s.experts % s.groups != 0 || s.topk_groups < 1 ||
      s.topk_groups > s.groups || s.top_k < 1 || s.top_k > s.experts / s.groups * s.topk_groups) {
    throw std::logic_error("Route: top_k " + std::to_string(s.top_k) + " of " +
                           std::to_string(s.experts) + " experts in " + std::to_string(s.groups) +
                           " groups, " + std::to_string(s.topk_groups) +
                           " kept: groups must divide experts and the kept ones hold top_k");
  }
}

/// Marks the `count` largest of value[0 .. n), lower index first among equals. Entries of -inf or
/// NaN are taken last, so that broken logits still give distinct ids.
void MarkLargest(const float* value, int n, int count, std::uint8_t* mark) {
  std::fill_n(mark, n, std::uint8_t{0});
  for (int c = 0; c < count; ++c) {
    int best = -1;
    for (int i = 0; i < n; ++i) {
      if (mark[i] == 0 && (best < 0 ? value[i] > kLowest : value[i] > value[best])) best = i;
    }
    if (best < 0) best = static_cast<int>(std::find(mark, mark + n, 0) - mark);
    mark[best] = 1;
  }
}

float GroupScore(RouterMethod method, const float* b, int n) {
  if (n == 1) return b[0];
  if (method == RouterMethod::kGroupLimitedGreedy) return *std::max_element(b, b + n);
  float first = kLowest, second = kLowest;
  for (int i = 0; i < n; ++i) {
    if (b[i] > first) {
      second = first;
      first = b[i];
    } else if (b[i] > second) {
      second = b[i];
    }
  }
  return first + second;
}

/// b [experts] is overwritten; group [groups] and mark [experts] are scratch.
void Choose(const RouterShape& shape, float* b, float* group, std::uint8_t* mark,
            std::int32_t* ids) {
  const int size = shape.experts / shape.groups;
  if (shape.topk_groups < shape.groups && shape.method != RouterMethod::kGreedy) {
    for (int g = 0; g < shape.groups; ++g) group[g] = GroupScore(shape.method, b + g * size, size);
    MarkLargest(group, shape.groups, shape.topk_groups, mark);
    for (int g = 0; g < shape.groups; ++g) {
      if (mark[g] == 0) std::fill_n(b + g * size, size, kLowest);
    }
  }
  MarkLargest(b, shape.experts, shape.top_k, mark);
  for (int i = 0; i < shape.experts; ++i) {
    if (mark[i] != 0) *ids++ = i;
  }
}

void Weigh(const RouterShape& shape, const float* s, const std::int32_t* ids, float* weight) {
  float sum = 0.0f;
  for (int j = 0; j < shape.top_k; ++j) sum = sum + s[ids[j]];
  sum = sum + 1e-20f;
  for (int j = 0; j < shape.top_k; ++j) {
    const float w = shape.normalize ? s[ids[j]] / sum : s[ids[j]];
    weight[j] = w * shape.scale;
  }
}

}  // namespace

void RouterScores(RouterMethod method, const float* logits, int experts, float* s) {
  if (method == RouterMethod::kNoauxTc) {
    ActiveVariant().sigmoid(logits, experts, s);
    return;
  }
  const float max = *std::max_element(logits, logits + experts);
  ActiveVariant().probabilities(logits, experts, 1.0f, max, nullptr, s);
  float sum = 0.0f;
  for (int i = 0; i < experts; ++i) sum = sum + s[i];
  for (int i = 0; i < experts; ++i) s[i] = s[i] / sum;
}

void Route(const float* logits, std::int64_t ld, const float* bias, const RouterShape& shape, int m,
           const std::int32_t* forced, std::int32_t* ids, float* weight, ThreadPool& pool) {
  Check(shape);
  const int experts = shape.experts, k = shape.top_k;
  const std::int64_t each = std::int64_t{experts} * (k + 2) * 700 + 50000;
  ForPieces(pool, m, each, [&](std::int64_t first, std::int64_t end) {
    thread_local Scratch scratch;
    float* s = scratch.Reserve(std::int64_t{experts} * 4);
    float* b = s + experts;
    float* group = b + experts;
    std::uint8_t* mark = reinterpret_cast<std::uint8_t*>(group + experts);
    for (std::int64_t r = first; r < end; ++r) {
      RouterScores(shape.method, logits + r * ld, experts, s);
      std::int32_t* chosen = ids + r * k;
      if (forced != nullptr) {
        for (int j = 0; j < k; ++j) {
          const std::int32_t id = forced[r * k + j];
          if (id < 0 || id >= experts) {
            throw std::logic_error("Route: forced expert " + std::to_string(id) + " of " +
                                   std::to_string(experts));
          }
          chosen[j] = id;
        }
      } else {
        const bool biased = shape.method == RouterMethod::kNoauxTc;
        for (int i = 0; i < experts; ++i) b[i] = biased ? s[i] + bias[i] : s[i];
        Choose(shape, b, group, mark, chosen);
      }
      Weigh(shape, s, chosen, weight + r * k);
    }
  });
}

}  // namespace temper::kernels
