#pragma once
// The GRPO family's loss as one pure function: values in, loss and d loss / d logp out. No autograd, no LibTorch.
#include <cstdint>
#include <span>
#include <vector>

#include "configs/config.h"

namespace temper::learner {

/// A batch, rows padded to T. groups are consecutive rows of `num_generations`.
struct LossInput {
  int n = 0, t = 0;
  std::span<const float> logp, old_logp, rollout_logp, ref_logp;  // [N, T]; ref_logp may be empty when beta is 0
  std::span<const float> mask;                                    // [N, T], 1 = trained token
};

struct LossOutput {
  double loss = 0;
  std::vector<float> grad;          // [N, T] d loss / d logp, exactly 0 where mask is 0
  Json metrics;                     // names of rl-facts 4b: clip_ratio/*, kl, actor/ppo_kl, actor/pg_clipfrac(_lower), mismatch/*, sampling/*
};

/// rewards [N] (NaN = not applicable) to advantages [N], in double; mask [N, T] is needed by opo and reinforce_plus_plus_baseline.
std::vector<double> Advantages(const configs::Grpo& config, std::span<const double> rewards, std::span<const float> mask, int t);

/// Totals of the whole optimizer step, passed explicitly so that any split of it gives the same gradient.
struct LossTotals {
  double rows = 0;        // N of the step
  double live_rows = 0;   // rows with a non-empty mask
  double tokens = 0;      // sum of the mask
};

/// max_completion_length is config.max_completion_length. totals may cover more rows than `in` (micro-batches).
LossOutput PolicyLoss(const configs::Grpo& config, const LossInput& in, std::span<const double> advantages,
                      const LossTotals& totals);
LossTotals CountTotals(const LossInput& in);

}  // namespace temper::learner
