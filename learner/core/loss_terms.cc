#include "learner/core/loss_terms.h"

#include <algorithm>
#include <cmath>

namespace temper::learner {
namespace {

Term ClipTerm(const LossRule& rule, double log_ratio, double a) {
  const double ratio = std::exp(log_ratio);
  const double capped = rule.delta ? std::min(ratio, *rule.delta) : ratio;
  const double clipped = std::clamp(ratio, rule.ratio_low, rule.ratio_high);
  const bool capped_moves = !rule.delta || ratio <= *rule.delta;
  const bool clipped_moves = ratio >= rule.ratio_low && ratio <= rule.ratio_high;
  const double first = capped * a, second = clipped * a;
  // The share of the ratio's slope that survives; a tie of min() takes half of each branch.
  double slope = 0;
  if (first < second) {
    slope = capped_moves;
  } else if (first > second) {
    slope = clipped_moves;
  } else {
    slope = (capped_moves + clipped_moves) / 2.0;
  }
  return {first < second ? -first : -second, -a * Times(slope, ratio), 0};
}

Term CispoTerm(const LossRule& rule, double log_ratio, double a, double logp) {
  // The weight is a constant: the gradient flows through logp alone.
  const double weight = std::clamp(std::exp(log_ratio), rule.ratio_low, rule.ratio_high);
  return {Times(-weight * a, logp), 0, -weight * a};
}

Term SapoTerm(double log_ratio, double a) {
  const double tau = a > 0 ? 1.0 : 1.05;
  const double ratio = std::exp(log_ratio);
  const double x = tau * (ratio - 1);
  const double tail = std::exp(-std::abs(x));  // both sigmoids from the side that cannot overflow
  const double gate = (x >= 0 ? 1.0 : tail) / (1 + tail);
  const double slope = tail / ((1 + tail) * (1 + tail));  // gate * (1 - gate)
  return {-a * gate * 4 / tau, -a * 4 * Times(slope, ratio), 0};
}

double KlSlope(KlEstimator kind, double x) {
  switch (kind) {
    case KlEstimator::kK1:
      return 1;
    case KlEstimator::kK2:
      return x;
    case KlEstimator::kK3:
      return -std::expm1(-x);
  }
  return 0;
}

}  // namespace

double Times(double u, double v) { return u == 0 || v == 0 ? 0 : u * v; }

Term Term::Scaled(double factor) const {
  return {Times(factor, value), Times(factor, by_log_ratio), Times(factor, by_logp)};
}

Term Term::operator+(const Term& other) const {
  return {value + other.value, by_log_ratio + other.by_log_ratio, by_logp + other.by_logp};
}

Term PolicyTerm(const LossRule& rule, double log_ratio, double advantage, double logp) {
  if (advantage == 0) return {};  // also where the ratio is infinite
  switch (rule.objective) {
    case Objective::kClip:
      return ClipTerm(rule, log_ratio, advantage);
    case Objective::kCispo:
      return CispoTerm(rule, log_ratio, advantage, logp);
    case Objective::kSapo:
      return SapoTerm(log_ratio, advantage);
  }
  return {};
}

double KlValue(KlEstimator kind, double x) {
  switch (kind) {
    case KlEstimator::kK1:
      return x;
    case KlEstimator::kK2:
      return x * x / 2;
    case KlEstimator::kK3:
      return std::expm1(-x) + x;
  }
  return 0;
}

Term KlTerm(const LossRule& rule, double log_ratio, double logp, double ref_logp) {
  const double x = logp - ref_logp;
  const double value = KlValue(rule.kl, x), slope = KlSlope(rule.kl, x);
  if (!rule.bias_corrected_kl) return {value, 0, slope};
  const double ratio = std::exp(log_ratio);
  return {Times(value, ratio), Times(value, ratio), Times(slope, ratio)};
}

}  // namespace temper::learner
