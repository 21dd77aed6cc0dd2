#include "learner/core/balance.h"

#include <numeric>
#include <utility>
#include <vector>

namespace temper::learner {

namespace {

/// The scores of some tokens, each token's summing to one.
class Scores {
 public:
  Scores(const kernels::RouterShape& shape, const float* logits, int tokens)
      : sigmoid_(shape.method == kernels::RouterMethod::kNoauxTc),
        experts_(std::size_t(shape.experts)),
        score_(std::size_t(tokens) * experts_),
        sum_(std::size_t(tokens), 1.0) {
    for (std::size_t t = 0; t < sum_.size(); ++t) {
      float* s = score_.data() + t * experts_;
      kernels::RouterScores(shape.method, logits + t * experts_, shape.experts, s);
      if (sigmoid_) sum_[t] = std::accumulate(s, s + experts_, 0.0);
    }
  }
  double at(std::size_t t, std::size_t e) const { return score_[t * experts_ + e] / sum_[t]; }

  /// Adds the gradient of sum over tokens and experts of slope_e * at(t, e).
  void AddGradient(const std::vector<double>& slope, float* d_logits) const {
    for (std::size_t t = 0; t < sum_.size(); ++t) {
      double mean = 0;
      for (std::size_t e = 0; e < experts_; ++e) mean += slope[e] * at(t, e);
      for (std::size_t e = 0; e < experts_; ++e) {
        const double s = score_[t * experts_ + e];
        const double inner = sigmoid_ ? s * (1 - s) / sum_[t] : s;
        d_logits[t * experts_ + e] += float((slope[e] - mean) * inner);
      }
    }
  }

 private:
  bool sigmoid_;
  std::size_t experts_;
  std::vector<float> score_;
  std::vector<double> sum_;
};

/// How often a sequence's tokens chose each expert, and were sent to each group.
struct Counts {
  Counts(int experts, int groups)
      : chosen(std::size_t(experts), 0.0), sent(std::size_t(groups), 0.0) {}

  void Add(const kernels::RouterShape& shape, const std::int32_t* ids, int count) {
    const int each = shape.experts / shape.groups;
    for (int t = 0; t < count; ++t) {
      std::vector<char> seen(sent.size(), 0);
      for (int j = 0; j < shape.top_k; ++j) {
        const int e = ids[std::ptrdiff_t(t) * shape.top_k + j];
        ++chosen[e];
        if (!std::exchange(seen[e / each], 1)) ++sent[e / each];
      }
    }
    tokens += count;
  }

  std::vector<double> chosen, sent;
  double tokens = 0;
};

/// d loss / d s_e of a sequence's tokens.
std::vector<double> Slopes(const BalanceWeights& weights, const kernels::RouterShape& shape,
                           const Counts& counts) {
  const int experts = shape.experts, groups = shape.groups, each = experts / groups;
  const double f = double(experts) / (double(shape.top_k) * counts.tokens),
               sent = double(groups) / (double(shape.topk_groups) * counts.tokens);
  std::vector<double> slope(std::size_t(experts), 0.0);
  for (int e = 0; e < experts; ++e) {
    const auto group = counts.chosen.begin() + e / each * each;
    slope[e] = weights.expert * f * counts.chosen[e] +
               weights.device * f * std::accumulate(group, group + each, 0.0) / each +
               weights.communication * sent * counts.sent[e / each];
    slope[e] /= counts.tokens * weights.sequences;
  }
  return slope;
}

}  // namespace

double AddBalanceGradient(const BalanceWeights& weights, const kernels::RouterShape& shape,
                          const Pack& pack, const std::int32_t* ids, const float* logits,
                          float* d_logits) {
  const std::size_t experts = std::size_t(shape.experts);
  const auto of = [&](const auto* values, int s, int width) {
    return values + std::ptrdiff_t(pack.start[s]) * width;
  };
  // A trunk's tokens stand in the losses of all of its branches.
  std::vector<std::vector<double>> slopes(std::size_t(pack.sequences()),
                                          std::vector<double>(experts, 0.0));
  for (int s = 0; s < pack.sequences(); ++s) {
    if (pack.BranchesEnd(s) > s + 1) continue;
    Counts counts(shape.experts, shape.groups);
    const int parts[] = {pack.trunk[s], s};
    for (int part : parts) {
      if (part >= 0) counts.Add(shape, of(ids, part, shape.top_k), pack.length(part));
    }
    if (counts.tokens == 0) continue;
    const std::vector<double> slope = Slopes(weights, shape, counts);
    for (int part : parts) {
      for (std::size_t e = 0; part >= 0 && e < experts; ++e) slopes[part][e] += slope[e];
    }
  }
  double loss = 0;
  for (int s = 0; s < pack.sequences(); ++s) {
    const int tokens = pack.length(s);
    const std::vector<double>& slope = slopes[std::size_t(s)];
    const Scores scores(shape, of(logits, s, shape.experts), tokens);
    for (int t = 0; t < tokens; ++t) {
      for (std::size_t e = 0; e < experts; ++e) loss += slope[e] * scores.at(std::size_t(t), e);
    }
    if (d_logits)
      scores.AddGradient(slope, d_logits + std::ptrdiff_t(pack.start[s]) * shape.experts);
  }
  return loss;
}

}  // namespace temper::learner
