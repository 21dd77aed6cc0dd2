#include "learner/core/loss.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "configs/error.h"
#include "tests/learner/core/loss_fixture.h"

namespace temper::learner {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// One row of trained tokens with the same log ratio each.
Batch OneRow(std::vector<float> logp, std::vector<float> old_logp) {
  Batch batch;
  batch.n = 1;
  batch.t = static_cast<int>(logp.size());
  batch.mask.assign(logp.size(), 1.0f);
  batch.rollout_logp = old_logp;
  batch.ref_logp = logp;
  batch.logp = std::move(logp);
  batch.old_logp = std::move(old_logp);
  return batch;
}

TEST(LossTest, EqualsTheGoldenLossesAndGradients) {
  const Json fixture = LoadFixture();
  const Batch batch = FixtureBatch(fixture);
  for (const Json& row : fixture.at("losses")) {
    const std::string name = row.at("name");
    const Json& given = row.contains("advantages") ? row : fixture;
    const LossOutput out =
        Loss(GrpoOf(row.at("set")), batch, given.at("advantages").get<std::vector<double>>());
    EXPECT_NEAR(out.loss, row.at("loss").get<double>(), 3e-7) << name;
    std::size_t token = 0;
    for (std::size_t i = 0; i < batch.mask.size(); ++i) {
      const double want = batch.mask[i] > 0 ? row.at("grad").at(token++).get<double>() : 0;
      EXPECT_NEAR(out.grad[i], want, 1.2e-6) << name << ", place " << i;
      if (want == 0) {
        EXPECT_EQ(out.grad[i], 0) << name << ", place " << i;
      }
    }
  }
}

TEST(LossTest, EqualsTheGoldenMetrics) {
  const Json fixture = LoadFixture();
  for (const Json& row : fixture.at("metrics")) {
    const LossOutput out = Loss(GrpoOf(row.at("set")), FixtureBatch(fixture),
                                fixture.at("advantages").get<std::vector<double>>());
    for (const auto& [name, want] : row.at("metrics").items()) {
      ASSERT_TRUE(out.metrics.contains(name)) << name;
      EXPECT_NEAR(out.metrics.at(name).get<double>(), want.get<double>(), 3e-7) << name;
    }
  }
}

TEST(LossTest, GspoIsGrpoWithASequenceRatio) {
  const Batch batch = RandomBatch(3);
  const Json common = {{"num_generations", 4}, {"epsilon", 0.05}};
  Json grpo = common, gspo = common;
  grpo["loss_type"] = "grpo";
  grpo["importance_sampling_level"] = "sequence";
  gspo["loss_type"] = "gspo";
  const std::vector<double> advantages = {1, -1, 0.5, -0.5, 1, -1, 0.5, -0.5};
  EXPECT_EQ(Loss(GrpoOf(gspo), batch, advantages).grad, Loss(GrpoOf(grpo), batch, advantages).grad);
}

TEST(LossTest, OnPolicyEveryTokenMovesWithItsAdvantage) {
  const Batch batch = OneRow({-1, -2}, {-1, -2});
  const LossOutput out = Loss(GrpoOf(Json::object()), batch, {-3});
  EXPECT_EQ(out.loss, 3);
  EXPECT_EQ(out.grad, (std::vector<float>{1.5, 1.5}));
}

TEST(LossTest, AClippedTokenHasNoGradientWhereTheRatioOverflows) {
  const configs::Grpo config = GrpoOf({{"epsilon", 0.2}});
  const LossOutput up = Loss(config, OneRow({-1, -1}, {-900, -1}), {1});
  EXPECT_EQ(up.grad, (std::vector<float>{0, -0.5}));
  EXPECT_DOUBLE_EQ(up.loss, -(1.2 + 1) / 2);
  const LossOutput down = Loss(config, OneRow({-900, -1}, {-1, -1}), {-1});
  EXPECT_EQ(down.grad, (std::vector<float>{0, 0.5}));
  EXPECT_DOUBLE_EQ(down.loss, (0.8 + 1) / 2);
}

TEST(LossTest, DeltaCapsAnOverflowingRatioOfABadSample) {
  const LossOutput out =
      Loss(GrpoOf({{"epsilon", 0.2}, {"delta", 3.0}}), OneRow({-1, -1}, {-900, -1}), {-1});
  EXPECT_EQ(out.grad, (std::vector<float>{0, 0.5}));
  EXPECT_DOUBLE_EQ(out.loss, (3 + 1) / 2.0);
}

TEST(LossTest, AnUnclippedOverflowIsReportedAsAnInfiniteLoss) {
  const configs::Grpo config = GrpoOf({{"epsilon", 0.2}});
  for (float old_logp : {-900.0f, -96.0f}) {  // over double's range, and over FP32's alone
    EXPECT_TRUE(std::isinf(Loss(config, OneRow({-1, -1}, {old_logp, -1}), {-1}).loss)) << old_logp;
  }
  EXPECT_EQ(Loss(config, OneRow({-1, -1}, {-900, -1}), {0}).loss, 0);
}

TEST(LossTest, SapoStaysFiniteWhereTheRatioOverflows) {
  for (double advantage : {1.0, -1.0}) {
    const LossOutput out =
        Loss(GrpoOf({{"loss_type", "sapo"}}), OneRow({-1, -900}, {-900, -1}), {advantage});
    EXPECT_TRUE(std::isfinite(out.loss));
    EXPECT_EQ(out.grad, (std::vector<float>{0, 0}));
  }
}

TEST(LossTest, ATokenWithoutARolloutLogprobHasWeightOne) {
  for (const char* mode : {"token_truncate", "token_mask", "sequence_truncate", "sequence_mask"}) {
    const configs::Grpo config =
        GrpoOf({{"rollout_correction.mode", mode}, {"rollout_correction.clip_max", 2.0}});
    Batch batch = OneRow({-1, -1}, {-1, -1});
    batch.rollout_logp = {kNan, -1.25f};
    const LossOutput out = Loss(config, batch, {1});
    const double other = std::exp(0.25);  // of the second token, or of the row
    const bool sequence = std::string(mode).starts_with("sequence");
    EXPECT_FLOAT_EQ(out.grad[0], -0.5 * (sequence ? other : 1)) << mode;
    EXPECT_FLOAT_EQ(out.grad[1], -0.5 * other) << mode;
    EXPECT_EQ(out.metrics.at("mismatch/k1").get<double>(), -0.25) << mode;
  }
}

TEST(LossTest, OverflowingRolloutWeightsAreTruncatedOrMasked) {
  Batch batch = OneRow({-1, -1}, {-1, -1});
  batch.rollout_logp = {-900, -1};
  const auto grad = [&](const char* mode) {
    return Loss(GrpoOf({{"rollout_correction.mode", mode}, {"rollout_correction.clip_max", 2.0}}),
                batch, {1})
        .grad;
  };
  EXPECT_EQ(grad("token_truncate"), (std::vector<float>{-1, -0.5}));
  EXPECT_EQ(grad("token_mask"), (std::vector<float>{0, -0.5}));
  EXPECT_EQ(grad("sequence_truncate"), (std::vector<float>{-1, -1}));
  EXPECT_EQ(grad("sequence_mask"), (std::vector<float>{0, 0}));
}

TEST(LossTest, DropsBadSequencesThatTheSamplerThoughtMuchLikelier) {
  // TRL's get_off_policy_mask on the fixture: mean(rollout - logp) is -0.426667, 0.1, 0.376667,
  // -1.32.
  const Batch batch = FixtureBatch(LoadFixture());
  const auto dropped = [&](double threshold, double sign) {
    const std::vector<double> advantages(4, sign);
    const LossOutput out =
        Loss(GrpoOf({{"off_policy_mask_threshold", threshold}, {"loss_type", "sapo"}}), batch,
             advantages);
    std::vector<int> rows;
    for (int i = 0; i < 4; ++i) rows.push_back(out.grad[i * 3] == 0);
    return rows;
  };
  EXPECT_EQ(dropped(0.3766, -1), (std::vector<int>{0, 0, 1, 0}));
  EXPECT_EQ(dropped(0.3767, -1), (std::vector<int>{0, 0, 0, 0}));
  EXPECT_EQ(dropped(0.0999, -1), (std::vector<int>{0, 1, 1, 0}));
  EXPECT_EQ(dropped(0.0001, +1), (std::vector<int>{0, 0, 0, 0}));
}

TEST(LossTest, TheKlCarriesNoRolloutWeight) {
  Batch batch = OneRow({-1, -1}, {-1, -1});
  batch.rollout_logp = {-3, -1};  // masked, kept
  batch.ref_logp = {-2, -3};
  const LossOutput out = Loss(GrpoOf({{"rollout_correction.mode", "token_mask"},
                                      {"rollout_correction.clip_max", 2.0},
                                      {"beta", 0.5},
                                      {"kl_estimator", "k2"}}),
                              batch, {1});
  EXPECT_EQ(out.grad, (std::vector<float>{0.25, 0}));
  EXPECT_EQ(out.loss, (0.5 * 0.5 + (0.5 * 2 - 1)) / 2);
}

TEST(LossTest, ADroppedSequenceKeepsItsKlAndItsPlaceInTheDenominator) {
  Batch batch = OneRow({-1, -1}, {-1, -1});
  batch.rollout_logp = {0, 0};
  batch.ref_logp = {-2, -1};
  const LossOutput out =
      Loss(GrpoOf({{"off_policy_mask_threshold", 0.5}, {"beta", 0.5}, {"kl_estimator", "k2"}}),
           batch, {-1});
  EXPECT_EQ(out.loss, 0.5 * 0.5 / 2);
  EXPECT_EQ(out.grad, (std::vector<float>{0.25, 0}));
}

TEST(LossTest, AnEmptyRowKeepsItsPlaceInN) {
  Batch batch = RandomBatch(9);  // row 5 is empty
  const std::vector<double> advantages = {1, -1, 0.5, -0.5, 1, -1, 0.5, -0.5};
  const LossTotals totals = CountTotals(batch.Input());
  EXPECT_EQ(totals.rows, 8);
  EXPECT_EQ(totals.live_rows, 7);
  EXPECT_EQ(totals.tokens, std::accumulate(batch.mask.begin(), batch.mask.end(), 0.0));
  for (const char* aggregation :
       {"seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"}) {
    const configs::Grpo config = GrpoOf({{"loss_aggregation", aggregation}});
    LossTotals fewer = totals;
    fewer.rows = 7;
    const double with = PolicyLoss(config, batch.Input(), advantages, totals).loss;
    const double without = PolicyLoss(config, batch.Input(), advantages, fewer).loss;
    EXPECT_NEAR(with * 8, without * 7, 1e-12) << aggregation;
  }
}

TEST(LossTest, TheKlMovesFromTheLossIntoTheReward) {
  Batch batch = OneRow({-1, -2}, {-1.5, -2});
  batch.ref_logp = {-2, -2.25};
  batch.rewards = {1};
  const Json set = {{"beta", 0.5}, {"kl_estimator", "k1"}};
  Json in_reward = set;
  in_reward["kl_in_reward"] = true;
  configs::Grpo config = GrpoOf(set);
  EXPECT_EQ(PenalizeRewards(config, batch.rewards, batch.Input()), batch.rewards);
  const double with_kl = Loss(config, batch, {0}).loss;
  config.kl_in_reward = true;
  EXPECT_EQ(PenalizeRewards(config, batch.rewards, batch.Input()),
            std::vector<double>{1 - 0.5 * (0.5 + 0.25)});
  EXPECT_NE(with_kl, 0);
  EXPECT_EQ(Loss(config, batch, {0}).loss, 0);
}

TEST(LossTest, TheReferenceMayBeMissingOnlyWithoutAKlTerm) {
  Batch batch = RandomBatch(4);
  batch.ref_logp.clear();
  LossInput in = RandomBatch(4).Input();
  const Batch whole = RandomBatch(4);
  in = whole.Input();
  in.ref_logp = {};
  const std::vector<double> advantages(8, 1.0);
  EXPECT_NO_THROW(PolicyLoss(GrpoOf(Json::object()), in, advantages, CountTotals(in)));
  EXPECT_THROW(PolicyLoss(GrpoOf({{"beta", 0.1}}), in, advantages, CountTotals(in)),
               std::logic_error);
}

TEST(LossTest, RefusesShapesThatDisagree) {
  const Batch batch = RandomBatch(4);
  LossInput in = batch.Input();
  in.old_logp = in.old_logp.subspan(1);
  const configs::Grpo config = GrpoOf(Json::object());
  EXPECT_THROW(PolicyLoss(config, in, std::vector<double>(8, 1.0), {}), std::logic_error);
  EXPECT_THROW(PolicyLoss(config, batch.Input(), std::vector<double>(7, 1.0), {}),
               std::logic_error);
}

TEST(LossTest, NamesTheOptionItDoesNotKnow) {
  configs::Grpo config;
  config.loss_type = "ppo";
  try {
    Loss(config, RandomBatch(1), std::vector<double>(8, 1.0));
    FAIL() << "accepted an unknown loss type";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("grpo.loss_type: found \"ppo\""), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace temper::learner
