#pragma once
// The GRPO family's loss as one pure function: values in, loss and d loss / d logp out. No
// autograd, no LibTorch.
#include <cstdint>
#include <span>
#include <vector>

#include "configs/config.h"

namespace temper::learner {

/// A batch, rows padded to T. groups are consecutive rows of `num_generations`.
struct LossInput {
  int n = 0, t = 0;
  std::span<const float> logp, old_logp, rollout_logp,
      ref_logp;                 // [N, T]; ref_logp may be empty when beta is 0
  std::span<const float> mask;  // [N, T], 1 = trained token
};

struct LossOutput {
  double loss = 0;          // not finite if it or any gradient overflows FP32: skip the step
  std::vector<float> grad;  // [N, T] d loss / d logp, exactly 0 where mask is 0
  Json metrics;  // names of rl-facts 4b: clip_ratio/*, kl, actor/ppo_kl, actor/pg_clipfrac(_lower),
                 // mismatch/*, sampling/*
};

/// grpo.kl_in_reward: R_i - beta * sum_t kl(old_logp, ref_logp) over the mask; PolicyLoss then adds
/// no KL term. Returns rewards unchanged if the setting is off.
std::vector<double> PenalizeRewards(const configs::Grpo& config, std::span<const double> rewards,
                                    const LossInput& in);

/// rewards [N] (NaN = not applicable) to advantages [N], in double; mask [N, T] is needed by opo
/// and reinforce_plus_plus_baseline. Throws UserError for an infinite reward, std::logic_error if N
/// is not a multiple of num_generations >= 2.
std::vector<double> Advantages(const configs::Grpo& config, std::span<const double> rewards,
                               std::span<const float> mask, int t);

/// reward, reward_std, frac_reward_zero_std (TRL's definitions), over the scored rows.
Json RewardMetrics(const configs::Grpo& config, std::span<const double> rewards);

/// Totals of the whole optimizer step, passed explicitly so that any split of it gives the same
/// gradient.
struct LossTotals {
  double rows = 0;       // N of the step
  double live_rows = 0;  // rows with a non-empty mask
  double tokens = 0;     // sum of the mask
};

/// Sums run in double in row order. Metrics are those of `in` alone: a mean over its tokens (or
/// rows, for a sequence ratio). Throws std::logic_error if the shapes disagree, UserError for an
/// option value it does not know. max_completion_length is config.max_completion_length. totals may
/// cover more rows than `in` (micro-batches).
LossOutput PolicyLoss(const configs::Grpo& config, const LossInput& in,
                      std::span<const double> advantages, const LossTotals& totals);
LossTotals CountTotals(const LossInput& in);

}  // namespace temper::learner
