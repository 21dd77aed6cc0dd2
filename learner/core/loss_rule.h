#pragma once
// The loss options resolved once: which objective, which bounds, which aggregation.
#include <optional>

#include "configs/config.h"

namespace temper::learner {

enum class Objective { kClip, kCispo, kSapo };
enum class KlEstimator { kK1, kK2, kK3 };
enum class Aggregation { kTokenMean, kSeqMeanTokenMean, kSeqMeanTokenSum, kSeqMeanTokenSumNorm };
enum class Correction { kNone, kTruncate, kMask };

struct LossRule {
  Objective objective = Objective::kClip;
  bool sequence_ratio = false;  // exp(mean log ratio of the row) instead of one ratio a token
  double ratio_low = 0;         // clip range of the ratio; TRL's cispo has no lower bound: 0
  double ratio_high = 0;
  std::optional<double> delta;  // cap of the unclipped ratio
  double beta = 0;              // of the KL term in the loss: 0 if the KL went into the reward
  KlEstimator kl = KlEstimator::kK3;
  bool bias_corrected_kl = false;  // KL times the ratio, gradient through both
  Aggregation aggregation = Aggregation::kTokenMean;
  double max_length = 0;  // divisor of seq-mean-token-sum-norm
  Correction correction = Correction::kNone;
  bool sequence_correction =
      false;              // the product of the row's ratios instead of one weight a token
  double weight_low = 0;  // bounds of the correction; infinite where unset
  double weight_high = 0;
  std::optional<double> off_policy_threshold;
};

/// Throws UserError "grpo.KEY: found X; must be one of ..." for a name it does not know, and for
/// cispo without epsilon_high.
LossRule ResolveRule(const configs::Grpo& config);

/// grpo.kl_estimator alone, for the KL in the reward.
KlEstimator ResolveKlEstimator(const configs::Grpo& config);

}  // namespace temper::learner
