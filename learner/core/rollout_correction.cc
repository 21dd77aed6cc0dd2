#include "learner/core/rollout_correction.h"

#include <algorithm>
#include <cmath>

namespace temper::learner {
namespace {

/// from - to, or 0 where a NaN leaves no evidence.
double Difference(float from, float to) {
  const double d = double{from} - double{to};
  return std::isnan(d) ? 0 : d;
}

double Bounded(const LossRule& rule, double log_weight) {
  const double w = std::exp(log_weight);
  if (rule.correction == Correction::kTruncate) {
    return std::min(std::max(w, rule.weight_low), rule.weight_high);
  }
  return w < rule.weight_low || w > rule.weight_high ? 0 : w;
}

}  // namespace

void RolloutWeights(const LossRule& rule, std::span<const float> old_logp,
                    std::span<const float> rollout_logp, std::span<const float> mask,
                    std::vector<double>& weight) {
  weight.assign(mask.size(), 1.0);
  if (rule.correction == Correction::kNone) return;
  double row_sum = 0;
  for (std::size_t t = 0; t < mask.size(); ++t) {
    if (!(mask[t] > 0)) continue;
    const double d = Difference(old_logp[t], rollout_logp[t]);
    row_sum += d;
    weight[t] = Bounded(rule, d);
  }
  if (rule.sequence_correction) weight.assign(mask.size(), Bounded(rule, row_sum));
}

bool KeepsSequence(const LossRule& rule, double advantage, std::span<const float> logp,
                   std::span<const float> rollout_logp, std::span<const float> mask) {
  if (!rule.off_policy_threshold || advantage >= 0) return true;
  double sum = 0, tokens = 0;
  for (std::size_t t = 0; t < mask.size(); ++t) {
    if (!(mask[t] > 0)) continue;
    sum += Difference(rollout_logp[t], logp[t]);
    tokens += 1;
  }
  return sum / std::max(tokens, 1.0) <= *rule.off_policy_threshold;
}

}  // namespace temper::learner
