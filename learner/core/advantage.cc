#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "configs/error.h"
#include "learner/core/loss.h"
#include "learner/core/loss_terms.h"

namespace temper::learner {
namespace {

constexpr double kStdFloor = 1e-4;     // TRL's, beside the standard deviation
constexpr double kWhitenFloor = 1e-8;  // verl's, beside the variance
constexpr double kZeroStd = 1e-8;      // torch.isclose(std, 0)

/// Rewards of some rows relative to the first scored one: equal rewards give exactly 0 whatever
/// their value.
struct Scored {
  std::vector<std::size_t> rows;
  std::vector<double> offset;  // a row of `rows`
  double origin = 0;

  Scored(std::span<const double> rewards, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      if (std::isnan(rewards[i])) continue;
      if (rows.empty()) origin = rewards[i];
      rows.push_back(i);
      offset.push_back(rewards[i] - origin);
    }
  }
  std::size_t size() const { return rows.size(); }
  double Sum() const {
    double sum = 0;
    for (double x : offset) sum += x;
    return sum;
  }
  double Mean() const { return Sum() / static_cast<double>(size()); }
  /// With size - 1 in the denominator; NaN below two rows.
  double Std() const {
    if (size() < 2) return std::numeric_limits<double>::quiet_NaN();
    const double mean = Mean();
    double squares = 0;
    for (double x : offset) squares += (x - mean) * (x - mean);
    return std::sqrt(squares / static_cast<double>(size() - 1));
  }
};

std::vector<double> TokenCounts(std::span<const float> mask, std::size_t n, int t) {
  if (mask.size() != n * static_cast<std::size_t>(t)) {
    throw std::logic_error("Advantages: this estimator weighs by tokens and needs the mask [N, T]");
  }
  std::vector<double> counts(n);
  for (std::size_t i = 0; i < mask.size(); ++i) counts[i / t] += mask[i] > 0;
  return counts;
}

void LeaveOneOut(const Scored& group, std::vector<double>& advantages) {
  const double sum = group.Sum(), others = static_cast<double>(group.size() - 1);
  for (std::size_t k = 0; k < group.size(); ++k) {
    advantages[group.rows[k]] = group.offset[k] - (sum - group.offset[k]) / others;
  }
}

void TokenWeightedBaseline(const Scored& group, const std::vector<double>& tokens,
                           std::vector<double>& advantages) {
  double sum = 0, total = 0;
  for (std::size_t k = 0; k < group.size(); ++k) {
    sum += tokens[group.rows[k]] * group.offset[k];
    total += tokens[group.rows[k]];
  }
  if (total == 0) return;  // nothing of this group is trained
  for (std::size_t k = 0; k < group.size(); ++k) {
    advantages[group.rows[k]] = group.offset[k] - sum / total;
  }
}

void Centre(const Scored& group, double scale, std::vector<double>& advantages) {
  const double mean = group.Mean();
  for (std::size_t k = 0; k < group.size(); ++k) {
    advantages[group.rows[k]] = (group.offset[k] - mean) / scale;
  }
}

/// To mean 0 and variance 1 over all tokens of the rows that take part.
void Whiten(const std::vector<std::size_t>& rows, const std::vector<double>& tokens,
            std::vector<double>& advantages) {
  double total = 0, sum = 0, squares = 0;
  for (std::size_t i : rows) total += tokens[i];
  for (std::size_t i : rows) sum += tokens[i] * advantages[i];
  const double mean = sum / total;
  for (std::size_t i : rows) {
    squares += tokens[i] * (advantages[i] - mean) * (advantages[i] - mean);
  }
  const double scale = std::sqrt(squares / (total - 1) + kWhitenFloor);
  // One token or none has no variance to divide by.
  for (std::size_t i : rows) advantages[i] = total > 1 ? (advantages[i] - mean) / scale : 0;
}

void CheckRewards(const configs::Grpo& config, std::span<const double> rewards) {
  if (config.num_generations < 2 || rewards.size() % config.num_generations != 0) {
    throw std::logic_error("Advantages: " + std::to_string(rewards.size()) +
                           " rows are not whole groups of " +
                           std::to_string(config.num_generations) + " >= 2");
  }
  for (std::size_t i = 0; i < rewards.size(); ++i) {
    if (std::isinf(rewards[i])) {
      throw UserError("rewards: sample " + std::to_string(i) +
                      ": found an infinite reward; must be finite, or not applicable");
    }
  }
}

}  // namespace

std::vector<double> Advantages(const configs::Grpo& config, std::span<const double> rewards,
                               std::span<const float> mask, int t) {
  CheckRewards(config, rewards);
  const std::string& estimator = config.advantage_estimator;
  const bool whitens = estimator == "reinforce_plus_plus_baseline";
  const bool by_tokens = whitens || estimator == "opo";
  if (!by_tokens && estimator != "grpo" && estimator != "rloo") {
    throw UserError("grpo.advantage_estimator: found \"" + estimator +
                    "\"; must be one of grpo, rloo, opo, reinforce_plus_plus_baseline");
  }
  std::vector<double> tokens;
  if (by_tokens) tokens = TokenCounts(mask, rewards.size(), t);
  const double batch_std = Scored(rewards, 0, rewards.size()).Std();
  std::vector<double> advantages(rewards.size(), 0.0);
  std::vector<std::size_t> taking_part;
  for (std::size_t begin = 0; begin < rewards.size(); begin += config.num_generations) {
    const Scored group(rewards, begin, begin + config.num_generations);
    if (group.size() < 2) continue;  // nothing to compare with: advantage 0
    taking_part.insert(taking_part.end(), group.rows.begin(), group.rows.end());
    if (estimator == "rloo") {
      LeaveOneOut(group, advantages);
    } else if (estimator == "opo") {
      TokenWeightedBaseline(group, tokens, advantages);
    } else if (whitens || config.scale_rewards == "none") {
      Centre(group, 1, advantages);
    } else {
      const double std = config.scale_rewards == "batch" ? batch_std : group.Std();
      Centre(group, std + kStdFloor, advantages);
    }
  }
  if (whitens) Whiten(taking_part, tokens, advantages);
  return advantages;
}

std::vector<double> PenalizeRewards(const configs::Grpo& config, std::span<const double> rewards,
                                    const LossInput& in) {
  std::vector<double> penalized(rewards.begin(), rewards.end());
  if (!config.kl_in_reward || config.beta == 0) return penalized;
  const std::size_t count = static_cast<std::size_t>(in.n) * in.t;
  if (rewards.size() != static_cast<std::size_t>(in.n) || in.mask.size() != count ||
      in.old_logp.size() != count || in.ref_logp.size() != count) {
    throw std::logic_error(
        "PenalizeRewards: rewards [N], mask, old_logp and ref_logp [N, T] disagree");
  }
  const KlEstimator kind = ResolveKlEstimator(config);
  for (std::size_t i = 0; i < count; ++i) {
    if (!(in.mask[i] > 0)) continue;
    const double x = double{in.old_logp[i]} - double{in.ref_logp[i]};
    if (std::isnan(x)) continue;  // a rollout's unknown log-prob says nothing
    penalized[i / in.t] -= config.beta * KlValue(kind, x);
  }
  return penalized;
}

Json RewardMetrics(const configs::Grpo& config, std::span<const double> rewards) {
  CheckRewards(config, rewards);
  const Scored batch(rewards, 0, rewards.size());
  const double batch_std = batch.Std();
  double groups = 0, flat = 0;
  for (std::size_t begin = 0; begin < rewards.size(); begin += config.num_generations) {
    const double std = config.scale_rewards == "batch"
                           ? batch_std
                           : Scored(rewards, begin, begin + config.num_generations).Std();
    groups += 1;
    flat += std <= kZeroStd;
  }
  Json metrics;
  metrics["reward"] = batch.size() == 0 ? Json() : Json(batch.origin + batch.Mean());
  metrics["reward_std"] = batch.size() < 2 ? Json() : Json(batch_std);
  metrics["frac_reward_zero_std"] = groups == 0 ? 0 : flat / groups;
  return metrics;
}

}  // namespace temper::learner
