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

/// d loss / d P_e of one sequence, without its factor 1 / sequences.
std::vector<double> Slopes(const BalanceWeights& weights, const kernels::RouterShape& shape,
                           const std::int32_t* ids, int tokens) {
  const int experts = shape.experts, groups = shape.groups, each = experts / groups;
  std::vector<double> f(std::size_t(experts), 0.0), sent(std::size_t(groups), 0.0);
  for (int t = 0; t < tokens; ++t) {
    std::vector<char> seen(std::size_t(groups), 0);
    for (int j = 0; j < shape.top_k; ++j) {
      const int e = ids[std::ptrdiff_t(t) * shape.top_k + j];
      f[e] += double(experts) / (double(shape.top_k) * tokens);
      if (!std::exchange(seen[e / each], 1))
        sent[e / each] += double(groups) / (double(shape.topk_groups) * tokens);
    }
  }
  std::vector<double> slope(std::size_t(experts), 0.0);
  for (int e = 0; e < experts; ++e) {
    const auto group = f.begin() + e / each * each;
    slope[e] = weights.expert * f[e] +
               weights.device * std::accumulate(group, group + each, 0.0) / each +
               weights.communication * sent[e / each];
  }
  return slope;
}

}  // namespace

double AddBalanceGradient(const BalanceWeights& weights, const kernels::RouterShape& shape,
                          const Pack& pack, const std::int32_t* ids, const float* logits,
                          float* d_logits) {
  double loss = 0;
  for (int s = 0; s < pack.sequences(); ++s) {
    const int tokens = pack.length(s);
    if (tokens == 0) continue;
    const std::ptrdiff_t first = pack.start[s];
    std::vector<double> slope = Slopes(weights, shape, ids + first * shape.top_k, tokens);
    for (double& x : slope) x /= double(tokens) * weights.sequences;
    const Scores scores(shape, logits + first * shape.experts, tokens);
    for (int t = 0; t < tokens; ++t) {
      for (int e = 0; e < shape.experts; ++e)
        loss += slope[std::size_t(e)] * scores.at(std::size_t(t), std::size_t(e));
    }
    if (d_logits) scores.AddGradient(slope, d_logits + first * shape.experts);
  }
  return loss;
}

}  // namespace temper::learner
