#include "learner/core/loss_metrics.h"

#include <algorithm>
#include <cmath>

#include "learner/core/loss_terms.h"

namespace temper::learner {

void LossMetrics::Tally::Add(double value) {
  count += 1;
  sum += value;
  least = std::min(least, value);
  greatest = std::max(greatest, value);
}

void LossMetrics::Add(const RowTrace& row) {
  AddClipping(row);
  if (rule_.sequence_correction) weight_.Add(row.weight.empty() ? 1 : row.weight[0]);
  for (std::size_t t = 0; t < row.mask.size(); ++t) {
    if (!(row.mask[t] > 0)) continue;
    ppo_kl_.Add(double{row.old_logp[t]} - double{row.logp[t]});
    if (!row.kl.empty()) kl_.Add(row.kl[t]);
    if (!rule_.sequence_correction) weight_.Add(row.weight[t]);
    AddMismatch(row.old_logp[t], row.rollout_logp[t]);
  }
}

void LossMetrics::AddClipping(const RowTrace& row) {
  if (rule_.objective == Objective::kSapo) return;  // a soft gate: nothing is clipped
  const double a = row.advantage;
  Tally low, high;
  for (std::size_t t = 0; t < row.mask.size(); ++t) {
    if (!(row.mask[t] > 0)) continue;
    const double ratio = std::exp(row.log_ratio[t]);
    const bool below = ratio<rule_.ratio_low, above = ratio> rule_.ratio_high;
    low.Add(below && a < 0);
    high.Add(above && a > 0);
    // cispo caps the weight whatever the advantage's sign; the clip binds only on the side that
    // min() picks.
    const bool moved = rule_.objective == Objective::kCispo ? below || above
                                                            : (below && a < 0) || (above && a > 0);
    moved_.Add(moved);
    capped_.Add(rule_.objective == Objective::kClip && rule_.delta && a < 0 &&
                ratio > *rule_.delta);
  }
  // A sequence ratio is one value a row, empty rows included (their ratio is 1); a token ratio
  // weighs by tokens.
  if (rule_.sequence_ratio) {
    low_.Add(low.Greatest());
    high_.Add(high.Greatest());
  } else {
    low_.count += low.count, low_.sum += low.sum;
    high_.count += high.count, high_.sum += high.sum;
  }
  if (row.tokens > 0 || rule_.sequence_ratio) {
    low_row_.Add(low.Mean());
    high_row_.Add(high.Mean());
  }
}

void LossMetrics::AddMismatch(float old_logp, float rollout_logp) {
  const double x = double{rollout_logp} - double{old_logp};
  if (std::isnan(x)) return;  // counting it as 0 would understate the mismatch
  k1_.Add(x);
  k3_.Add(KlValue(KlEstimator::kK3, x));
  difference_.Add(std::abs(x));
  prob_error_.Add(std::exp(std::abs(x)));
}

Json LossMetrics::Values() const {
  Json m;
  m["clip_ratio/low_mean"] = low_.Mean();
  m["clip_ratio/low_min"] = low_row_.Least();
  m["clip_ratio/high_mean"] = high_.Mean();
  m["clip_ratio/high_max"] = high_row_.Greatest();
  m["clip_ratio/region_mean"] = low_.Mean() + high_.Mean();
  if (rule_.objective == Objective::kCispo) m["cispo_clip_ratio"] = high_.Mean();
  if (rule_.beta != 0) m["kl"] = kl_.Mean();
  m["actor/ppo_kl"] = ppo_kl_.Mean();
  m["actor/pg_clipfrac"] = moved_.Mean();
  m["actor/pg_clipfrac_lower"] = capped_.Mean();
  m["mismatch/k1"] = k1_.Mean();
  m["mismatch/k3"] = k3_.Mean();
  m["mismatch/logp_abs_diff_mean"] = difference_.Mean();
  m["mismatch/logp_abs_diff_max"] = difference_.Greatest();
  m["mismatch/token_mult_prob_error"] = prob_error_.Mean();
  m["sampling/sampling_logp_difference/mean"] = difference_.Mean();
  m["sampling/sampling_logp_difference/max"] = difference_.Greatest();
  if (rule_.correction != Correction::kNone) {
    m["sampling/importance_sampling_ratio/min"] = weight_.Least();
    m["sampling/importance_sampling_ratio/mean"] = weight_.Mean();
    m["sampling/importance_sampling_ratio/max"] = weight_.Greatest();
  }
  return m;
}

}  // namespace temper::learner
