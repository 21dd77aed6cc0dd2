#include <gtest/gtest.h>

#include "learner/core/inbox.h"
#include "tests/learner/core/inbox_fixture.h"

namespace temper::learner {
namespace {

TEST_F(InboxTest, ResumeGeneratesOnlyWhatIsMissingAndScoresWhatIsNot) {
  Publish(5);
  Join("a1");
  JoinWorker("w1");
  Loaded("a1", 5);
  const auto stored = [&](std::uint64_t grp,
                          std::vector<std::pair<std::uint32_t, std::string>> samples) {
    store::GroupRow row = RowOf(grp);
    row.attempt = 1;
    row.granted_version = 5;
    std::vector<store::RolloutRow> live;
    for (const auto& [sample, state] : samples) {
      store::RolloutRow r;
      r.grp = grp;
      r.sample = sample;
      r.version = 5;
      r.state = state;
      r.finish_reason = "stop";
      r.ids = {5, 1};
      r.logp = {0, 0};
      live.push_back(r);
    }
    inbox_->AddGroup(RowOf(grp), std::nullopt, Inbox::Stored{row, live, {}});
  };
  stored(2, {{0, "scored"}, {1, "received"}, {2, "received"}});
  stored(3, {{1, "received"}});
  effects_ = {};
  inbox_->Open(2, now_, &effects_);
  EXPECT_EQ(Granted("a1"), "3x2.a2");
  EXPECT_EQ(GrantsTo("a1")[0].groups[0].samples, (std::vector<std::uint32_t>{0, 2}));
  ASSERT_EQ(RequestsTo("w1").size(), 1u);
  Hear("w1", ResultOf(RequestsTo("w1")[0]));
  EXPECT_EQ(WritesOf<ScoreWrite>().size(), 2u);  // the first score of sample 0 stands
  EXPECT_FALSE(inbox_->Complete(2));
}

TEST_F(InboxTest, AResumedStepThatIsWholeNeedsNobody) {
  for (std::uint64_t grp = 0; grp < 2; ++grp) {
    std::vector<store::RolloutRow> live(3);
    for (std::uint32_t s = 0; s < 3; ++s) {
      live[s].grp = grp;
      live[s].sample = s;
      live[s].state = "scored";
    }
    inbox_->AddGroup(RowOf(grp), std::nullopt, Inbox::Stored{RowOf(grp), live, {}});
  }
  effects_ = {};
  inbox_->Open(1, now_, &effects_);
  EXPECT_TRUE(inbox_->Complete(1));
}

TEST_F(InboxTest, ARolloutOfATrainedStepIsStoredAsLate) {
  Use(SmallConfig(1, 2));
  Start();
  Deliver("a1", 0, 0, 0);
  Deliver("a1", 0, 1, 0);
  Hear("w1", ResultOf(RequestsTo("w1").at(0)));
  Take(1);
  Deliver("a1", 0, 1, 0);
  ASSERT_EQ(WritesOf<RolloutWrite>().size(), 1u);
  EXPECT_EQ(WritesOf<RolloutWrite>()[0].drop_reason, "late");
  EXPECT_EQ(effects_.acks.size(), 1u);
}

}  // namespace
}  // namespace temper::learner
