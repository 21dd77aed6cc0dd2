#include <gtest/gtest.h>

#include <limits>

#include "configs/error.h"
#include "learner/core/loss.h"
#include "tests/learner/core/loss_fixture.h"

namespace temper::learner {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
const char* const kEstimators[] = {"grpo", "rloo", "opo", "reinforce_plus_plus_baseline"};

std::vector<double> Of(const Json& set, const std::vector<double>& rewards) {
  const std::vector<float> mask(rewards.size() * 2, 1.0f);
  return Advantages(GrpoOf(set), rewards, mask, 2);
}

TEST(AdvantageTest, EqualsTheGoldenRows) {
  const Json fixture = LoadFixture();
  const Batch batch = FixtureBatch(fixture);
  for (Json row : fixture.at("advantage_rows")) {
    row["set"]["num_generations"] = 2;
    const std::vector<double> got =
        Advantages(GrpoOf(row.at("set")), batch.rewards, batch.mask, batch.t);
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(got[i], row.at("advantages").at(i).get<double>(), 6e-7) << row.dump();
    }
  }
}

TEST(AdvantageTest, EqualRewardsGiveExactlyZeroForEveryEstimator) {
  for (const char* estimator : kEstimators) {
    for (const char* scale : {"group", "batch", "none"}) {
      for (double reward : {0.1, 1.0 / 3, -7.7}) {
        const std::vector<double> got = Of(
            {{"advantage_estimator", estimator}, {"scale_rewards", scale}, {"num_generations", 3}},
            {reward, reward, reward});
        EXPECT_EQ(got, std::vector<double>(3, 0.0)) << estimator << " " << scale << " " << reward;
      }
    }
  }
}

TEST(AdvantageTest, ARewardThatDoesNotApplyLeavesTheOthersAsIfItsRowWereAbsent) {
  for (const char* estimator : kEstimators) {
    const Json set = {{"advantage_estimator", estimator}, {"scale_rewards", "batch"}};
    Json four = set, three = set;
    four["num_generations"] = 4;
    three["num_generations"] = 3;
    const std::vector<double> with = Of(four, {1, kNone, 0, 0.5, 0.25, 1, -1, kNone});
    const std::vector<double> without = Of(three, {1, 0, 0.5, 0.25, 1, -1});
    const std::vector<double> want = {without[0], 0,          without[1], without[2],
                                      without[3], without[4], without[5], 0};
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(with[i], want[i]) << estimator << i;
  }
}

TEST(AdvantageTest, AGroupWithOneScoredSampleOrNoneLearnsNothing) {
  for (const char* estimator : kEstimators) {
    const std::vector<double> got = Of({{"advantage_estimator", estimator}, {"num_generations", 2}},
                                       {5, kNone, kNone, kNone, 1, 0});
    EXPECT_EQ(std::vector<double>(got.begin(), got.begin() + 4), std::vector<double>(4, 0.0))
        << estimator;
    EXPECT_GT(got[4], 0) << estimator;
    EXPECT_LT(got[5], 0) << estimator;
  }
}

TEST(AdvantageTest, PermutingTheGroupsPermutesTheAdvantages) {
  const std::vector<double> rewards = {1, 0, 0.3, 0.7, 0.1, 0.9},
                            swapped = {0.1, 0.9, 1, 0, 0.3, 0.7};
  for (const char* estimator : kEstimators) {
    for (const char* scale : {"group", "batch", "none"}) {
      const Json set = {
          {"advantage_estimator", estimator}, {"scale_rewards", scale}, {"num_generations", 2}};
      const std::vector<double> a = Of(set, rewards), b = Of(set, swapped);
      for (int i = 0; i < 6; ++i) {
        EXPECT_NEAR(a[i], b[(i + 2) % 6], 1e-12) << estimator << " " << scale;
      }
    }
  }
}

TEST(AdvantageTest, TokenWeightedEstimatorsSurviveEmptyMasks) {
  for (const char* estimator : {"opo", "reinforce_plus_plus_baseline"}) {
    const configs::Grpo config =
        GrpoOf({{"advantage_estimator", estimator}, {"num_generations", 2}});
    const std::vector<float> mask(4, 0.0f);
    EXPECT_EQ(Advantages(config, std::vector<double>{1, 0}, mask, 2), std::vector<double>(2, 0.0));
    EXPECT_THROW(Advantages(config, std::vector<double>{1, 0}, {}, 2), std::logic_error);
  }
}

TEST(AdvantageTest, RefusesBrokenGroupsAndInfiniteRewards) {
  configs::Grpo config;
  config.num_generations = 4;
  const std::vector<double> six(6, 1.0);
  EXPECT_THROW(Advantages(config, six, {}, 0), std::logic_error);
  config.num_generations = 1;
  EXPECT_THROW(Advantages(config, six, {}, 0), std::logic_error);
  config.num_generations = 2;
  const std::vector<double> infinite = {1, std::numeric_limits<double>::infinity()};
  EXPECT_THROW(Advantages(config, infinite, {}, 0), UserError);
  config.advantage_estimator = "gae";
  EXPECT_THROW(Advantages(config, six, {}, 0), UserError);
}

TEST(AdvantageTest, RewardMetricsLeaveOutWhatDoesNotApply) {
  configs::Grpo config;
  config.num_generations = 2;
  const Json some = RewardMetrics(config, std::vector<double>{1, 0, 0.5, 0.5, kNone, 3});
  EXPECT_DOUBLE_EQ(some.at("reward").get<double>(), 1);
  EXPECT_NEAR(some.at("reward_std").get<double>(), 1.1726039399558574, 1e-12);
  EXPECT_DOUBLE_EQ(some.at("frac_reward_zero_std").get<double>(), 1.0 / 3);
  const Json none = RewardMetrics(config, std::vector<double>{kNone, kNone});
  EXPECT_TRUE(none.at("reward").is_null());
  EXPECT_TRUE(none.at("reward_std").is_null());
}

}  // namespace
}  // namespace temper::learner
