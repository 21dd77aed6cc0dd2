#pragma once
// What one token adds to the loss: its value, and its derivatives with respect to the two things
// logp acts through.
#include "learner/core/loss_rule.h"

namespace temper::learner {

/// Derivatives are with respect to the log ratio rather than the ratio: a saturated or clipped
/// branch is then exactly 0 and no 0 * infinity can arise where exp overflows.
struct Term {
  double value = 0;
  double by_log_ratio =
      0;               // the log ratio is the token's own or, for a sequence ratio, the row's mean
  double by_logp = 0;  // directly: cispo's log-prob, the KL estimator's

  Term Scaled(double factor) const;
  Term operator+(const Term& other) const;
};

/// u * v, and 0 if either is 0: a masked or neutral factor silences a term whatever its size.
double Times(double u, double v);

/// -objective(ratio) * advantage of one token, to be minimised; no rollout weight, no KL.
/// Source: arXiv 1707.06347 (clip; delta: 2505.07291), 2506.13585 (cispo), 2511.20347 (sapo).
Term PolicyTerm(const LossRule& rule, double log_ratio, double advantage, double logp);

/// kl(policy || reference) of one token, without beta. Source: J. Schulman's k1, k2, k3; the bias
/// correction is DeepSeek-V3.2's: times the ratio.
Term KlTerm(const LossRule& rule, double log_ratio, double logp, double ref_logp);

/// The estimator alone at x = logp - ref_logp.
double KlValue(KlEstimator kind, double x);

}  // namespace temper::learner
