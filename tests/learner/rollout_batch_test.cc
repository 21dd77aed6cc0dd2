#include "learner/rollout_batch.h"

#include <gtest/gtest.h>

#include <cmath>

namespace temper::learner {
namespace {

store::RolloutRow Row(std::uint64_t grp, std::uint32_t sample, std::vector<std::int32_t> ids,
                      std::optional<double> score) {
  store::RolloutRow row;
  row.grp = grp;
  row.sample = sample;
  row.state = "scored";
  row.version = 5;
  row.logp.assign(ids.size(), -0.5f);
  row.loss_mask.assign(ids.size(), 1);
  row.ids = std::move(ids);
  row.score = score;
  row.finish_reason = "stop";
  return row;
}

class RolloutBatchTest : public testing::Test {
 protected:
  RolloutBatchTest() {
    config_.num_generations = 2;
    ScoredGroup a, b;
    a.grp = 0;
    a.prompt_ids = {1, 2, 3};
    a.samples = {Row(0, 0, {7, 8}, 1.0), Row(0, 1, {9}, 0.0)};
    b.grp = 1;
    b.prompt_ids = {4};
    b.samples = {Row(1, 0, {5, 6, 7}, std::nullopt), Row(1, 1, {5}, 1.0)};
    b.samples[1].state = "dropped";
    groups_ = {a, b};
  }
  configs::Grpo config_;
  std::vector<ScoredGroup> groups_;
};

TEST_F(RolloutBatchTest, DroppedRowsKeepTheirPlaceWithoutTokensOrReward) {
  const RolloutBatch batch = MakeBatch(config_, groups_);
  EXPECT_EQ(batch.n, 4);
  EXPECT_EQ(batch.t, 3);
  EXPECT_EQ(batch.rewards[0], 1.0);
  EXPECT_TRUE(std::isnan(batch.rewards[2]));  // not applicable: no reward, but its tokens count
  EXPECT_TRUE(std::isnan(batch.rewards[3]));
  EXPECT_EQ(batch.mask, (std::vector<float>{1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0}));
}

TEST_F(RolloutBatchTest, PacksAGroupsPromptOnceWithOneTargetACompletionToken) {
  const RolloutBatch batch = MakeBatch(config_, groups_);
  const std::vector<RowPack> packs = PackRows(batch, {0, 1, 2}, 5);
  ASSERT_EQ(packs.size(), 2u);  // 3 + 1 + 0 tokens fit, 3 more don't
  EXPECT_EQ(packs[0].pack->ids, (std::vector<std::int32_t>{1, 2, 3, 7}));
  EXPECT_EQ(packs[0].pack->trunk, (std::vector<std::int32_t>{-1, 0, 0}));
  EXPECT_EQ(packs[0].targets.row, (std::vector<std::int32_t>{2, 3, 2}));
  EXPECT_EQ(packs[0].targets.target, (std::vector<std::int32_t>{7, 8, 9}));
  EXPECT_EQ(packs[1].targets.row, (std::vector<std::int32_t>{0, 1, 2}));
}

TEST_F(RolloutBatchTest, MismatchComparesOnlyTokensOfTheLearnersVersion) {
  groups_[0].samples[0].versions = {4, 5};
  RolloutBatch batch = MakeBatch(config_, groups_);
  batch.logp = batch.rollout_logp;
  batch.logp[0] = -3;  // an older policy's token: lag, no mismatch
  Json metrics = BatchMetrics(config_, groups_, batch, 5);
  EXPECT_EQ(metrics["mismatch/logp_abs_diff_max"], 0.0);
  EXPECT_EQ(metrics["mismatch/token_mult_prob_error"], 1.0);
  EXPECT_EQ(metrics["lag/max"], 1);
  batch.logp[1] -= 0.25f;
  metrics = BatchMetrics(config_, groups_, batch, 5);
  EXPECT_NEAR(metrics["mismatch/logp_abs_diff_max"].get<double>(), 0.25, 1e-9);
  EXPECT_FALSE(BatchMetrics(config_, groups_, batch, 9).contains("mismatch/k3"));
}

TEST_F(RolloutBatchTest, CountsLengthsOfWhatWasNotDropped) {
  groups_[0].samples[0].finish_reason = "length";
  const Json metrics = BatchMetrics(config_, groups_, MakeBatch(config_, groups_), 5);
  EXPECT_EQ(metrics["completions/mean_length"], 2.0);
  EXPECT_EQ(metrics["completions/min_length"], 1);
  EXPECT_EQ(metrics["completions/max_length"], 3);
  EXPECT_NEAR(metrics["completions/clipped_ratio"].get<double>(), 1.0 / 3, 1e-12);
  EXPECT_EQ(metrics["completions/dropped"], 1);
}

TEST_F(RolloutBatchTest, RefusesAGroupWithASampleMissing) {
  groups_[1].samples.pop_back();
  EXPECT_THROW(MakeBatch(config_, groups_), std::logic_error);
}

TEST_F(RolloutBatchTest, ALongCompletionLosesRewardInTheBuffer) {
  config_.soft_overlong = Json{{"max_length", 2}, {"buffer", 2}};
  const RolloutBatch batch = MakeBatch(config_, groups_);
  EXPECT_EQ(batch.rewards[0], 0.0);   // 1 - (2 - 0) / 2
  EXPECT_EQ(batch.rewards[1], -0.5);  // 0 - (1 - 0) / 2
  groups_[0].samples[0].ids = {1, 2, 3, 4, 5};
  groups_[0].samples[0].logp.assign(5, -1.0f);
  groups_[0].samples[0].loss_mask.clear();
  EXPECT_EQ(MakeBatch(config_, groups_).rewards[0], 0.0);  // never more than 1 off
  config_.soft_overlong = Json{{"max_length", 20}, {"buffer", 5}};
  EXPECT_EQ(MakeBatch(config_, groups_).rewards[0], 1.0);
}

TEST_F(RolloutBatchTest, ASliceHoldsTheRowsOfItsGroups) {
  RolloutBatch batch = MakeBatch(config_, groups_);
  batch.advantages = {1, 2, 3, 4};
  batch.old_logp = batch.rollout_logp;
  const RolloutBatch part = Slice(batch, 2, 2);
  EXPECT_EQ(part.n, 2);
  EXPECT_EQ(part.row[0], batch.row[2]);
  EXPECT_EQ(part.advantages, (std::vector<double>{3, 4}));
  EXPECT_EQ(part.mask, (std::vector<float>{1, 1, 1, 0, 0, 0}));
  EXPECT_EQ(part.old_logp.size(), 6u);
  EXPECT_TRUE(part.ref_logp.empty());
}

}  // namespace
}  // namespace temper::learner
