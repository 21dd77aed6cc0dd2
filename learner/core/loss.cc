#include "learner/core/loss.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "learner/core/loss_metrics.h"
#include "learner/core/loss_rule.h"
#include "learner/core/loss_terms.h"
#include "learner/core/rollout_correction.h"

namespace temper::learner {
namespace {

void CheckShapes(const LossRule& rule, const LossInput& in, std::span<const double> advantages) {
  const std::size_t count = static_cast<std::size_t>(in.n) * in.t;
  const bool has_ref = in.ref_logp.size() == count || (in.ref_logp.empty() && rule.beta == 0);
  if (in.n < 0 || in.t < 0 || in.logp.size() != count || in.old_logp.size() != count ||
      in.rollout_logp.size() != count || in.mask.size() != count || !has_ref ||
      advantages.size() != static_cast<std::size_t>(in.n)) {
    throw std::logic_error(
        "PolicyLoss: logp, old_logp, rollout_logp, mask [N, T], ref_logp [N, T] (or empty with "
        "beta 0) and advantages [N] disagree");
  }
}

/// What one token of a row weighs in the step's loss.
double TokenShare(const LossRule& rule, double row_tokens, const LossTotals& totals) {
  const double rows = std::max(totals.rows, 1.0);  // a row with an empty mask keeps its place
  switch (rule.aggregation) {
    case Aggregation::kTokenMean:
      return 1 / std::max(totals.tokens, 1.0);
    case Aggregation::kSeqMeanTokenMean:
      return 1 / (rows * row_tokens);
    case Aggregation::kSeqMeanTokenSum:
      return 1 / rows;
    case Aggregation::kSeqMeanTokenSumNorm:
      return 1 / (rows * rule.max_length);
  }
  return 0;
}

/// One row of the input, with the buffers that its trace points into.
class RowLoss {
 public:
  RowLoss(const LossRule& rule, const LossInput& in) : rule_(rule), in_(in) {}

  /// Adds the row's gradient to grad [T] and returns its part of the loss.
  double Run(int row, double advantage, const LossTotals& totals, std::span<float> grad);
  const RowTrace& trace() const { return trace_; }

 private:
  void View(int row, double advantage);
  void FillLogRatios();

  const LossRule& rule_;
  const LossInput& in_;
  RowTrace trace_;
  std::span<const float> ref_logp_;
  std::vector<double> log_ratio_, weight_, kl_, by_logp_;
};

void RowLoss::View(int row, double advantage) {
  const std::size_t t = in_.t, begin = row * t;
  trace_ = {};
  trace_.advantage = advantage;
  trace_.logp = in_.logp.subspan(begin, t);
  trace_.old_logp = in_.old_logp.subspan(begin, t);
  trace_.rollout_logp = in_.rollout_logp.subspan(begin, t);
  trace_.mask = in_.mask.subspan(begin, t);
  if (rule_.beta != 0) ref_logp_ = in_.ref_logp.subspan(begin, t);
  for (float m : trace_.mask) trace_.tokens += m > 0;
}

void RowLoss::FillLogRatios() {
  log_ratio_.assign(trace_.mask.size(), 0.0);
  double sum = 0;
  for (std::size_t t = 0; t < log_ratio_.size(); ++t) {
    if (!(trace_.mask[t] > 0)) continue;  // what lies outside the mask may be anything
    log_ratio_[t] = double{trace_.logp[t]} - double{trace_.old_logp[t]};
    sum += log_ratio_[t];
  }
  if (rule_.sequence_ratio) {
    std::fill(log_ratio_.begin(), log_ratio_.end(), sum / std::max(trace_.tokens, 1));
  }
  trace_.log_ratio = log_ratio_;
}

double RowLoss::Run(int row, double advantage, const LossTotals& totals, std::span<float> grad) {
  View(row, advantage);
  FillLogRatios();
  RolloutWeights(rule_, trace_.old_logp, trace_.rollout_logp, trace_.mask, weight_);
  trace_.weight = weight_;
  const bool kept = KeepsSequence(rule_, advantage, trace_.logp, trace_.rollout_logp, trace_.mask);
  const double share = TokenShare(rule_, trace_.tokens, totals);
  kl_.assign(rule_.beta != 0 ? trace_.mask.size() : 0, 0.0);
  trace_.kl = kl_;
  by_logp_.assign(trace_.mask.size(), 0.0);

  double loss = 0, by_row_ratio = 0;
  for (std::size_t t = 0; t < trace_.mask.size(); ++t) {
    if (!(trace_.mask[t] > 0)) continue;
    Term term =
        PolicyTerm(rule_, log_ratio_[t], advantage, trace_.logp[t]).Scaled(kept ? weight_[t] : 0);
    if (rule_.beta != 0) {
      const Term kl = KlTerm(rule_, log_ratio_[t], trace_.logp[t], ref_logp_[t]);
      kl_[t] = kl.value;
      term = term + kl.Scaled(rule_.beta);  // the KL carries no rollout weight
    }
    term = term.Scaled(share);
    loss += term.value;
    by_logp_[t] = term.by_logp + (rule_.sequence_ratio ? 0 : term.by_log_ratio);
    by_row_ratio += term.by_log_ratio;
  }
  // d (mean log ratio) / d logp_t = 1 / tokens: a sequence ratio spreads over its row.
  const double spread = rule_.sequence_ratio ? by_row_ratio / std::max(trace_.tokens, 1) : 0;
  for (std::size_t t = 0; t < trace_.mask.size(); ++t) {
    if (trace_.mask[t] > 0) grad[t] = static_cast<float>(by_logp_[t] + spread);
  }
  return loss;
}

}  // namespace

LossTotals CountTotals(const LossInput& in) {
  LossTotals totals;
  totals.rows = in.n;
  for (int i = 0; i < in.n; ++i) {
    double tokens = 0;
    for (float m : in.mask.subspan(static_cast<std::size_t>(i) * in.t, in.t)) tokens += m > 0;
    totals.tokens += tokens;
    totals.live_rows += tokens > 0;
  }
  return totals;
}

LossOutput PolicyLoss(const configs::Grpo& config, const LossInput& in,
                      std::span<const double> advantages, const LossTotals& totals) {
  const LossRule rule = ResolveRule(config);
  CheckShapes(rule, in, advantages);
  LossOutput out;
  out.grad.assign(static_cast<std::size_t>(in.n) * in.t, 0.0f);
  LossMetrics metrics(rule);
  RowLoss row_loss(rule, in);
  for (int i = 0; i < in.n; ++i) {
    const std::span<float> grad(out.grad.data() + static_cast<std::size_t>(i) * in.t, in.t);
    out.loss += row_loss.Run(i, advantages[i], totals, grad);
    metrics.Add(row_loss.trace());
  }
  out.metrics = metrics.Values();
  const bool finite =
      std::all_of(out.grad.begin(), out.grad.end(), [](float g) { return std::isfinite(g); });
  if (!std::isnan(out.loss) &&
      (!finite || std::abs(out.loss) > std::numeric_limits<float>::max())) {
    // A double can still hold what FP32 weights cannot use: one check of `loss` must be enough for
    // the caller.
    out.loss = std::copysign(std::numeric_limits<double>::infinity(), out.loss);
  }
  return out;
}

}  // namespace temper::learner
