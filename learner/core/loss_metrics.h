#pragma once
// The loss's metrics under the names of TRL, verl and prime-rl, gathered row by row.
#include <limits>
#include <span>

#include "configs/json.h"
#include "learner/core/loss_rule.h"

namespace temper::learner {

/// One row as the loss saw it; spans are [T].
struct RowTrace {
  double advantage = 0;
  int tokens = 0;  // of the mask
  std::span<const float> logp, old_logp, rollout_logp, mask;
  std::span<const double> log_ratio;  // the row's mean in each place for a sequence ratio
  std::span<const double> weight;     // of the rollout correction
  std::span<const double> kl;         // as added to the loss, without beta
};

class LossMetrics {
 public:
  explicit LossMetrics(const LossRule& rule) : rule_(rule) {}
  void Add(const RowTrace& row);

  /// clip_ratio/*, actor/*, mismatch/*, sampling/sampling_logp_difference/*; `kl` with a KL term,
  /// sampling/importance_sampling_ratio/* with a rollout correction, cispo_clip_ratio with cispo.
  /// Means over nothing are 0.
  Json Values() const;

 private:
  /// Running count, sum, least and greatest.
  struct Tally {
    double count = 0, sum = 0;
    double least = std::numeric_limits<double>::infinity();
    double greatest = -std::numeric_limits<double>::infinity();
    void Add(double value);
    double Mean() const { return count == 0 ? 0 : sum / count; }
    double Least() const { return count == 0 ? 0 : least; }
    double Greatest() const { return count == 0 ? 0 : greatest; }
  };

  void AddClipping(const RowTrace& row);
  void AddMismatch(float old_logp, float rollout_logp);

  LossRule rule_;
  Tally low_, high_, low_row_,
      high_row_;  // clipped: of tokens (rows for a sequence ratio); of each row
  Tally ppo_kl_, moved_, capped_, kl_;       // of tokens
  Tally weight_;                             // of tokens (rows for a sequence correction)
  Tally k1_, k3_, difference_, prob_error_;  // of tokens that have a rollout log-prob
};

}  // namespace temper::learner
