#include "learner/core/loss_rule.h"

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "configs/error.h"

namespace temper::learner {
namespace {

template <typename T>
using Names = std::vector<std::pair<std::string, T>>;

template <typename T>
T Lookup(const std::string& key, const std::string& found, const Names<T>& names) {
  std::string known;
  for (const auto& [name, value] : names) {
    if (name == found) return value;
    known += (known.empty() ? "" : ", ") + name;
  }
  throw UserError("grpo." + key + ": found \"" + found + "\"; must be one of " + known);
}

struct LossType {
  Objective objective;
  Aggregation aggregation;
};

LossType ResolveLossType(const std::string& name) {
  return Lookup<LossType>("loss_type", name,
                          {{"dapo", {Objective::kClip, Aggregation::kTokenMean}},
                           {"grpo", {Objective::kClip, Aggregation::kSeqMeanTokenMean}},
                           {"bnpo", {Objective::kClip, Aggregation::kTokenMean}},
                           {"dr_grpo", {Objective::kClip, Aggregation::kSeqMeanTokenSumNorm}},
                           {"cispo", {Objective::kCispo, Aggregation::kTokenMean}},
                           {"sapo", {Objective::kSapo, Aggregation::kSeqMeanTokenMean}},
                           {"gspo", {Objective::kClip, Aggregation::kSeqMeanTokenMean}}});
}

void ResolveClip(const configs::Grpo& config, LossRule& rule) {
  rule.ratio_low = 1 - config.epsilon;
  rule.ratio_high = 1 + config.epsilon_high.value_or(config.epsilon);
  rule.delta = config.delta;
  if (rule.objective != Objective::kCispo || config.cispo_relative) return;
  if (!config.epsilon_high) {
    throw UserError("grpo.epsilon_high: unset; cispo needs the cap of the ratio itself, e.g. 5.0");
  }
  rule.ratio_low = 0;
  rule.ratio_high = *config.epsilon_high;
}

void ResolveCorrection(const configs::RolloutCorrection& config, LossRule& rule) {
  const auto [correction, sequence] =
      Lookup<std::pair<Correction, bool>>("rollout_correction.mode", config.mode,
                                          {{"none", {Correction::kNone, false}},
                                           {"token_truncate", {Correction::kTruncate, false}},
                                           {"token_mask", {Correction::kMask, false}},
                                           {"sequence_truncate", {Correction::kTruncate, true}},
                                           {"sequence_mask", {Correction::kMask, true}}});
  rule.correction = correction;
  rule.sequence_correction = sequence;
  constexpr double kUnbounded = std::numeric_limits<double>::infinity();
  rule.weight_low = config.clip_min.value_or(-kUnbounded);
  rule.weight_high = config.clip_max.value_or(kUnbounded);
}

}  // namespace

KlEstimator ResolveKlEstimator(const configs::Grpo& config) {
  return Lookup<KlEstimator>(
      "kl_estimator", config.kl_estimator,
      {{"k1", KlEstimator::kK1}, {"k2", KlEstimator::kK2}, {"k3", KlEstimator::kK3}});
}

LossRule ResolveRule(const configs::Grpo& config) {
  LossRule rule;
  const LossType type = ResolveLossType(config.loss_type);
  rule.objective = type.objective;
  rule.aggregation = type.aggregation;
  if (config.loss_aggregation) {
    rule.aggregation =
        Lookup<Aggregation>("loss_aggregation", *config.loss_aggregation,
                            {{"token-mean", Aggregation::kTokenMean},
                             {"seq-mean-token-mean", Aggregation::kSeqMeanTokenMean},
                             {"seq-mean-token-sum", Aggregation::kSeqMeanTokenSum},
                             {"seq-mean-token-sum-norm", Aggregation::kSeqMeanTokenSumNorm}});
  }
  rule.max_length = config.max_completion_length;
  rule.sequence_ratio = Lookup<bool>("importance_sampling_level", config.importance_sampling_level,
                                     {{"token", false}, {"sequence", true}}) ||
                        config.loss_type == "gspo";
  rule.beta = config.kl_in_reward ? 0 : config.beta;
  rule.kl = ResolveKlEstimator(config);
  rule.bias_corrected_kl = config.use_bias_correction_kl;
  rule.off_policy_threshold = config.off_policy_mask_threshold;
  ResolveClip(config, rule);
  ResolveCorrection(config.rollout_correction, rule);
  return rule;
}

}  // namespace temper::learner
