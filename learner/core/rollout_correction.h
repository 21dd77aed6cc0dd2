#pragma once
// How much a row's tokens count when the sampler's log-probs differ from the learner's.
#include <span>
#include <vector>

#include "learner/core/loss_rule.h"

namespace temper::learner {

/// weight[t] for exp(old - rollout), truncated or masked by the rule; 1 everywhere if the
/// correction is off. Spans are one row [T]; weight is overwritten, its masked places are 1. A NaN
/// rollout log-prob has difference 0. No gradient flows here. Source: TRL grpo_trainer
/// (vllm_importance_sampling_mode); IcePop is token_mask.
void RolloutWeights(const LossRule& rule, std::span<const float> old_logp,
                    std::span<const float> rollout_logp, std::span<const float> mask,
                    std::vector<double>& weight);

/// False for a row to be dropped: advantage < 0 and mean(rollout - logp) over the threshold
/// (DeepSeek-V3.2's off-policy sequence mask). NaN rollout log-probs are no evidence: difference 0.
bool KeepsSequence(const LossRule& rule, double advantage, std::span<const float> logp,
                   std::span<const float> rollout_logp, std::span<const float> mask);

}  // namespace temper::learner
