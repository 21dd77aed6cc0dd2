#include <gtest/gtest.h>

#include "learner/core/inbox.h"
#include "tests/learner/core/inbox_fixture.h"

namespace temper::learner {
namespace {

class DynamicSamplingTest : public InboxTest {
 protected:
  void Begin(int max_gen_batches, int max_lag = 0) {
    config_ = SmallConfig(2, 3, max_lag);
    config_.grpo.dynamic_sampling = true;
    config_.grpo.max_gen_batches = max_gen_batches;
    Use(config_);
    Publish(0);
    Join("a1");
    JoinWorker("w1");
    Loaded("a1", 0);
  }
  /// Delivers and scores a group; its last reward is `last`, the others 1. Gives what was granted.
  std::string Score(std::uint64_t grp, double last, std::uint32_t version = 0) {
    DeliverGroup(grp, version);
    const auto requests = RequestsTo("w1");
    EXPECT_EQ(requests.size(), 1u);
    wire::ScoreResult result = ResultOf(requests.at(0));
    result.samples[2].score = last;
    Hear("w1", result);
    return Granted("a1");
  }
  static std::vector<std::uint64_t> Numbers(const std::vector<ScoredGroup>& groups) {
    std::vector<std::uint64_t> numbers;
    for (const ScoredGroup& g : groups) numbers.push_back(g.grp);
    return numbers;
  }
};

using Groups = std::vector<std::uint64_t>;

TEST_F(DynamicSamplingTest, AGroupWithoutASpreadOfRewardsIsReplacedByTheNext) {
  Begin(4);
  Open(1);
  EXPECT_EQ(Granted("a1"), "0x3 1x3");
  EXPECT_EQ(Score(0, 1), "2x3");  // all rewards are 1
  EXPECT_FALSE(inbox_->Complete(1));
  EXPECT_EQ(Score(1, 0), "");
  EXPECT_EQ(Score(2, 1), "3x3");
  EXPECT_EQ(Score(3, 0.5), "");
  ASSERT_TRUE(inbox_->Complete(1));
  const Batch batch = Take(1);
  EXPECT_EQ(Numbers(batch.groups), (Groups{1, 3}));
  EXPECT_EQ(Numbers(batch.passed_over), (Groups{0, 2}));
  EXPECT_EQ(batch.next_group, 4u);
  // The next batch begins behind them.
  Publish(1);
  Loaded("a1", 1);
  Open(2);
  EXPECT_EQ(Granted("a1"), "4x3 5x3");
  EXPECT_EQ(WritesOf<store::GroupRow>().at(0).granted_step, 2);
}

TEST_F(DynamicSamplingTest, TheOrderOfArrivalDoesNotChangeTheBatch) {
  Begin(4);
  Open(1);
  EXPECT_EQ(Score(1, 0), "");  // group 0 is not known yet
  EXPECT_EQ(Score(0, 1), "2x3");
  EXPECT_EQ(Score(2, 0), "");
  EXPECT_EQ(Numbers(Take(1).groups), (Groups{1, 2}));
}

TEST_F(DynamicSamplingTest, AtTheLimitTheBatchIsFilledWithGroupsThatPullNothing) {
  Begin(2);
  Open(1);
  Score(0, 1);
  Score(1, 1);
  Score(2, 0);
  EXPECT_FALSE(inbox_->Complete(1));
  EXPECT_EQ(Score(3, 1), "");  // 2 * 2 groups were looked at: no more
  ASSERT_TRUE(inbox_->Complete(1));
  const Batch batch = Take(1);
  EXPECT_EQ(Numbers(batch.groups), (Groups{0, 2}));
  EXPECT_EQ(Numbers(batch.passed_over), (Groups{1, 3}));
  EXPECT_EQ(batch.next_group, 4u);
}

TEST_F(DynamicSamplingTest, AnAsynchronousRunIsAheadByItsLagWhateverIsPassedOver) {
  Begin(4, /*max_lag=*/1);
  Open(1);
  EXPECT_EQ(Granted("a1"), "0x3 1x3 2x3 3x3");
  EXPECT_EQ(Score(0, 1), "4x3");
  EXPECT_EQ(Score(1, 0), "");
  EXPECT_EQ(Score(2, 0), "");
  EXPECT_EQ(Numbers(Take(1).groups), (Groups{1, 2}));
  Open(2);
  EXPECT_EQ(Granted("a1"), "5x3 6x3");
}

TEST_F(InboxTest, AnEvaluationIsGreedyAndLeavesNoTrace) {
  Publish(0);
  Join("a1");
  JoinWorker("w1");
  Loaded("a1", 0);
  for (std::uint64_t i = 0; i < 2; ++i) inbox_->AddEval(RowOf(Inbox::kFirstEval + i), "7");
  effects_ = {};
  inbox_->GrantEvals(now_, &effects_);
  ASSERT_EQ(GrantsTo("a1").size(), 1u);
  EXPECT_EQ(GrantsTo("a1")[0].sampling.temperature, 0);
  EXPECT_EQ(GrantsTo("a1")[0].groups.size(), 2u);
  EXPECT_EQ(Writes(), 0u);
  for (std::uint64_t i = 0; i < 2; ++i) {
    Deliver("a1", Inbox::kFirstEval + i, 0, 0);
    EXPECT_EQ(Writes(), 0u);
    EXPECT_EQ(effects_.acks.size(), 1u);
    const auto requests = RequestsTo("w1");
    ASSERT_EQ(requests.size(), 1u);
    EXPECT_EQ(requests[0].samples.size(), 1u);
    EXPECT_EQ(inbox_->unfinished_evals(), int(2 - i));
    Hear("w1", ResultOf(requests[0], double(i)));
    EXPECT_EQ(Writes(), 0u);
  }
  EXPECT_EQ(inbox_->unfinished_evals(), 0);
  const std::vector<ScoredGroup> done = inbox_->TakeEvals();
  ASSERT_EQ(done.size(), 2u);
  EXPECT_EQ(done[1].samples[0].score, 1.0);
  // A sample that nobody asked for.
  Deliver("a1", Inbox::kFirstEval + 9, 0, 0);
  EXPECT_EQ(RefusalTo("a1"), wire::kNotTaken);
}

}  // namespace
}  // namespace temper::learner
