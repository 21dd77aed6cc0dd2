// What must hold for every loss type with every option, on random batches.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "learner/core/loss.h"
#include "tests/learner/core/loss_fixture.h"

namespace temper::learner {
namespace {

/// Every loss type with every option that changes its form.
std::vector<Json> OptionMatrix() {
  std::vector<Json> rules;
  for (const char* type : {"dapo", "grpo", "bnpo", "dr_grpo", "cispo", "sapo", "gspo"}) {
    for (const char* level : {"token", "sequence"}) {
      for (const char* kl : {"", "k1", "k2", "k3", "k3 bias"}) {
        for (const char* mode :
             {"none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"}) {
          Json rule = {{"loss_type", type},
                       {"importance_sampling_level", level},
                       {"num_generations", 4},
                       {"epsilon", 0.15},
                       {"epsilon_high", 0.25}};
          if (std::string(type) == "cispo") rule["epsilon_high"] = 1.1;
          const std::string estimator(kl);
          if (!estimator.empty()) {
            rule["beta"] = 0.3;
            rule["kl_estimator"] = estimator.substr(0, 2);
            rule["use_bias_correction_kl"] = estimator.size() > 2;
          } else {
            rule["delta"] = 1.4;
            rule["off_policy_mask_threshold"] = 0.05;
          }
          if (std::string(type) == "cispo" || std::string(type) == "sapo") rule.erase("delta");
          rule["rollout_correction.mode"] = mode;
          if (std::string(mode) != "none") {
            rule["rollout_correction.clip_max"] = 1.3;
            rule["rollout_correction.clip_min"] = 0.7;
          }
          rules.push_back(rule);
        }
      }
    }
  }
  for (const char* aggregation :
       {"token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"}) {
    rules.push_back({{"loss_aggregation", aggregation}, {"num_generations", 4}, {"beta", 0.1}});
  }
  rules.push_back({{"loss_type", "cispo"}, {"cispo_relative", true}, {"num_generations", 4}});
  return rules;
}

TEST(LossPropertyTest, GradientsAreTheSlopesOfTheLossForEveryLossTypeAndOption) {
  int checked = 0;
  for (const Json& rule : OptionMatrix()) {
    const configs::Grpo config = GrpoOf(rule);
    Batch batch = RandomBatch(11);
    const std::vector<double> advantages = Advantages(config, batch.rewards, batch.mask, batch.t);
    const LossOutput out = Loss(config, batch, advantages);
    // cispo's weight is held constant by its definition: move old and rollout along, so that the
    // ratio stays.
    const bool constant_ratio = config.loss_type == "cispo";
    if (constant_ratio && config.use_bias_correction_kl) continue;
    const double scale = *std::max_element(out.grad.begin(), out.grad.end());
    for (std::size_t i = 0; i < batch.logp.size(); ++i) {
      const auto at = [&](double step) {
        Batch moved = batch;
        moved.logp[i] += static_cast<float>(step);
        if (constant_ratio) {
          moved.old_logp[i] += static_cast<float>(step);
          moved.rollout_logp[i] += static_cast<float>(step);
        }
        return Loss(config, moved, advantages).loss;
      };
      const double here = at(0), up = at(kGrid), down = at(-kGrid);
      // A kink or a jump shows as one-sided slopes that differ by more than the curvature can.
      if (std::abs(up - 2 * here + down) > 8 * kGrid * kGrid * std::max(scale, 1.0)) continue;
      EXPECT_NEAR(out.grad[i], (up - down) / (2 * kGrid), 2e-5 * std::max(scale, 1.0))
          << rule.dump() << ", place " << i;
      checked += batch.mask[i] > 0;
    }
  }
  EXPECT_GT(checked, 10000);  // the kinks left out are few
}

TEST(LossPropertyTest, AnySplitIntoMicroBatchesGivesTheSameGradient) {
  for (const Json& rule : OptionMatrix()) {
    const configs::Grpo config = GrpoOf(rule);
    const Batch batch = RandomBatch(5);
    const std::vector<double> advantages = Advantages(config, batch.rewards, batch.mask, batch.t);
    const LossTotals totals = CountTotals(batch.Input());
    const LossOutput whole = Loss(config, batch, advantages);
    for (int size : {1, 3, 5}) {
      double loss = 0;
      std::vector<float> grad;
      for (int begin = 0; begin < batch.n; begin += size) {
        const int end = std::min(batch.n, begin + size);
        const LossOutput part =
            PolicyLoss(config, batch.Rows(begin, end),
                       std::span<const double>(advantages).subspan(begin, end - begin), totals);
        loss += part.loss;
        grad.insert(grad.end(), part.grad.begin(), part.grad.end());
      }
      EXPECT_EQ(grad, whole.grad) << rule.dump();
      EXPECT_NEAR(loss, whole.loss, 1e-12) << rule.dump();
    }
  }
}

TEST(LossPropertyTest, WhatLiesOutsideTheMaskChangesNothingAndHasNoGradient) {
  for (const Json& rule : OptionMatrix()) {
    const configs::Grpo config = GrpoOf(rule);
    const Batch garbage = RandomBatch(7);  // NaN outside the mask
    Batch clean = garbage;
    for (std::size_t i = 0; i < clean.mask.size(); ++i) {
      if (clean.mask[i] > 0) continue;
      clean.logp[i] = clean.old_logp[i] = clean.rollout_logp[i] = clean.ref_logp[i] = -1;
    }
    const std::vector<double> advantages = Advantages(config, clean.rewards, clean.mask, clean.t);
    const LossOutput a = Loss(config, garbage, advantages), b = Loss(config, clean, advantages);
    EXPECT_TRUE(std::isfinite(a.loss)) << rule.dump();
    EXPECT_EQ(a.loss, b.loss) << rule.dump();
    EXPECT_EQ(a.grad, b.grad) << rule.dump();
    EXPECT_EQ(a.metrics, b.metrics) << rule.dump();
    for (std::size_t i = 0; i < a.grad.size(); ++i) {
      if (!(garbage.mask[i] > 0)) {
        EXPECT_EQ(a.grad[i], 0) << rule.dump();
      }
    }
  }
}

TEST(LossPropertyTest, WithEverythingMaskedLossAndGradientAreZero) {
  for (const Json& rule : OptionMatrix()) {
    Batch batch = RandomBatch(2);
    std::fill(batch.mask.begin(), batch.mask.end(), 0.0f);
    const LossOutput out = Loss(GrpoOf(rule), batch, {1, -1, 1, -1, 1, -1, 1, -1});
    EXPECT_EQ(out.loss, 0) << rule.dump();
    EXPECT_EQ(out.grad, std::vector<float>(batch.mask.size(), 0.0f)) << rule.dump();
    for (const auto& [name, value] : out.metrics.items()) {
      EXPECT_TRUE(std::isfinite(value.get<double>())) << name;
    }
  }
}

}  // namespace
}  // namespace temper::learner
