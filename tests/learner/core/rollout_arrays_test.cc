#include "learner/core/rollout_arrays.h"

#include <gtest/gtest.h>

#include "tests/learner/core/inbox_fixture.h"

namespace temper::learner {
namespace {

constexpr ExpertShape kShape{2, 3, 16};

TEST(RolloutArraysTest, ExpertsAreAscendingIdsOfEveryLayerForEveryTokenButTheLast) {
  const std::vector<std::uint16_t> good = {0, 1, 15, 3, 4, 5, 1, 2, 3, 7, 8, 9};
  EXPECT_EQ(WhyNotExperts(good, 3, kShape), "");
  EXPECT_NE(WhyNotExperts(good, 4, kShape).find("must be 18"), std::string::npos);
  EXPECT_NE(WhyNotExperts({}, 3, kShape).find("0 expert ids"), std::string::npos);
  std::vector<std::uint16_t> bad = good;
  bad[2] = 16;
  EXPECT_NE(WhyNotExperts(bad, 3, kShape).find("expert id 16 of token 0"), std::string::npos);
  bad = good;
  bad[8] = 2;
  EXPECT_NE(WhyNotExperts(bad, 3, kShape).find("of token 1"), std::string::npos);
}

TEST(RolloutArraysTest, KeptIdsAreAListForEachTokenThatHasTheToken) {
  const std::vector<std::int32_t> ids = {5, 9}, kept = {2, 1, 5, 3, 0, 4, 9};
  EXPECT_EQ(WhyNotKept(kept, ids, 10), "");
  EXPECT_EQ(UnpackKept(kept), (std::vector<std::vector<std::int32_t>>{{1, 5}, {0, 4, 9}}));
  const std::vector<std::vector<std::int32_t>> bad = {{},
                                                      {2, 1, 5},
                                                      {2, 1, 5, 3, 0, 4},
                                                      {2, 1, 5, 9, 0, 4, 9},
                                                      {0, 1, 9},
                                                      {-1, 1, 9},
                                                      {2, 5, 1, 3, 0, 4, 9},
                                                      {2, 1, 5, 3, 0, 4, 10},
                                                      {2, 1, 6, 3, 0, 4, 9},
                                                      {2, 1, 5, 3, 0, 4, 9, 1},
                                                      {2147483647, 1, 5}};
  for (const auto& list : bad) EXPECT_NE(WhyNotKept(list, ids, 10), "");
}

class ReplayTest : public InboxTest {
 protected:
  void Begin() {
    configs::Config config = SmallConfig();
    config.grpo.top_k = 4;
    config.grpo.truncated_sampling = "renormalise";
    Use(config, kShape);
    Start();
  }
  wire::Rollout Good() const {
    wire::Rollout rollout = RolloutOf(0, 0, 0);  // prompt of one id, completion of two
    rollout.experts = {0, 1, 15, 3, 4, 5, 1, 2, 3, 7, 8, 9};
    rollout.kept = {2, 1, 5, 1, 1};
    return rollout;
  }
};

TEST_F(ReplayTest, GrantsAskForExpertsAndKeptIdsAndTheRowHasThem) {
  Begin();
  Hear("a1", Good());
  EXPECT_EQ(RefusalTo("a1"), "");
  const auto writes = WritesOf<RolloutWrite>();
  ASSERT_EQ(writes.size(), 1u);
  EXPECT_EQ(writes[0].row.experts, Good().experts);
  EXPECT_EQ(writes[0].row.kept, Good().kept);
}

TEST_F(ReplayTest, ARolloutWhoseExpertsOrKeptIdsDoNotFitIsNotTaken) {
  Begin();
  for (int which = 0; which < 3; ++which) {
    wire::Rollout rollout = Good();
    if (which == 0) rollout.experts.pop_back();
    if (which == 1) rollout.experts[0] = 99;
    if (which == 2) rollout.kept.clear();
    Hear("a1", rollout);
    EXPECT_EQ(RefusalTo("a1"), wire::kNotTaken) << which;
    EXPECT_EQ(WritesOf<RolloutWrite>().size(), 0u) << which;
  }
}

TEST_F(ReplayTest, WhatNobodyAskedForIsNotStored) {
  Start();
  Hear("a1", Good());
  const auto writes = WritesOf<RolloutWrite>();
  ASSERT_EQ(writes.size(), 1u);
  EXPECT_TRUE(writes[0].row.experts.empty());
  EXPECT_TRUE(writes[0].row.kept.empty());
}

}  // namespace
}  // namespace temper::learner
