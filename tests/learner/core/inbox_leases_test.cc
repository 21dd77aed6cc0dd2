#include <gtest/gtest.h>

#include <random>

#include "learner/core/inbox.h"
#include "tests/learner/core/inbox_fixture.h"

namespace temper::learner {
namespace {

TEST_F(InboxTest, TakesBackTheSlotsOfAnActorThatFellSilent) {
  Publish(0);
  Join("a1");
  Open(1);
  Loaded("a1", 0);
  Deliver("a1", 0, 1, 0);
  Pass(5 * kSecond, {"a1"});
  Join("a2");
  Loaded("a2", 0);
  EXPECT_EQ(Granted("a2"), "");
  Tick(kSecond);
  for (int i = 0; i < 9; ++i) {
    Hear("a2", wire::Heartbeat());
    Tick(kSecond);
    if (!Granted("a2").empty()) break;
  }
  // Only what is missing, and as a further attempt.
  EXPECT_EQ(Granted("a2"), "0x2.a1 1x3.a1");
  EXPECT_EQ(GrantsTo("a2")[0].groups[0].samples, (std::vector<std::uint32_t>{0, 2}));
}

TEST_F(InboxTest, HandsTheWorkOfALostConnectionOutAtOnce) {
  Publish(0);
  Join("a1");
  Join("a2");
  Open(1);
  Loaded("a1", 0);
  EXPECT_EQ(Granted("a1"), "0x3");  // its share of two
  Loaded("a2", 0);
  EXPECT_EQ(Granted("a2"), "1x3");
  effects_ = {};
  inbox_->PeerGone("a1", &effects_);
  EXPECT_EQ(Granted("a2"), "0x3.a1");
}

TEST_F(InboxTest, ALateRolloutOfALostLeaseIsNotTrainedTwice) {
  Start();
  effects_ = {};
  inbox_->PeerGone("a1", &effects_);
  Join("a2");
  Loaded("a2", 0);
  EXPECT_EQ(Granted("a2"), "0x3.a1 1x3.a1");
  // a1 is back on a new connection and delivers attempt 0 of one sample first: it counts.
  wire::Hello again = HelloOf("a1", wire::Role::kActor, 64);
  again.session = kSession;
  again.held = {{0, 0}};
  Hear("a1-again", again);
  Deliver("a1-again", 0, 0, 0);
  ASSERT_EQ(WritesOf<RolloutWrite>().size(), 1u);
  Deliver("a2", 0, 0, 0, 1);
  ASSERT_EQ(WritesOf<RolloutWrite>().size(), 1u);  // the store drops it as a duplicate
  EXPECT_EQ(WritesOf<RolloutWrite>()[0].row.attempt, 1);
  Deliver("a2", 0, 1, 0, 1);
  Deliver("a2", 0, 2, 0, 1);
  ASSERT_EQ(RequestsTo("w1").size(), 1u);
  Hear("w1", ResultOf(RequestsTo("w1")[0]));
  const auto scores = WritesOf<ScoreWrite>();
  EXPECT_EQ(scores[0].id, (wire::RolloutId{0, 0, 0}));
  EXPECT_EQ(scores[1].id, (wire::RolloutId{0, 1, 1}));
}

TEST_F(InboxTest, AnActorThatReconnectsKeepsWhatItHoldsAndLosesWhatItNeverGot) {
  Publish(0);
  Join("a1");
  Open(1);
  Loaded("a1", 0);
  wire::Hello again = HelloOf("a1", wire::Role::kActor, 64);
  again.session = kSession;
  again.held = {{1, 0}};  // the grant of group 0 was lost with the connection
  Hear("a1-again", again);
  EXPECT_EQ(Granted("a1-again"), "");
  Loaded("a1-again", 0);
  EXPECT_EQ(Granted("a1-again"), "0x3.a1");
  Deliver("a1-again", 1, 0, 0);
  EXPECT_EQ(WritesOf<RolloutWrite>().size(), 1u);
}

TEST_F(InboxTest, APoisonedGroupEndsTheRunInsteadOfTurningForEver) {
  Publish(0);
  Join("a1");
  Open(1);
  Loaded("a1", 0);
  for (int i = 0; i <= Inbox::kMaxAttempts && !effects_.failure; ++i) {
    wire::Rollout rollout = RolloutOf(0, 0, 0, i);
    rollout.finish = "error";
    Hear("a1", rollout);
  }
  EXPECT_NE(FailureText().find("machine: g0: handed out 21 times"), std::string::npos)
      << FailureText();
}

TEST_F(InboxTest, AnActorGetsAnotherGroupWhileARowIsFree) {
  Use(SmallConfig(5, 3));
  Publish(0);
  Join("a1", 7);
  Pass(4 * kSecond, {"a1"});  // nobody else joins
  Open(1);
  Loaded("a1", 0);
  EXPECT_EQ(Granted("a1"), "0x3 1x3 2x3");  // seven run, two wait
  Deliver("a1", 0, 0, 0);
  Deliver("a1", 0, 1, 0);
  EXPECT_EQ(Granted("a1"), "");
  Deliver("a1", 0, 2, 0);
  EXPECT_EQ(Granted("a1"), "3x3");
}

TEST_F(InboxTest, AGroupLargerThanAnActorIsStillGranted) {
  Publish(0);
  Join("a1", 2);
  Open(1);
  Loaded("a1", 0);
  EXPECT_EQ(Granted("a1"), "0x3");
}

TEST_F(InboxTest, SharesAStepAmongTheActors) {
  Use(SmallConfig(6, 3));
  Publish(0);
  for (const char* a : {"a1", "a2", "a3"}) Join(a);
  Open(1);
  Loaded("a1", 0);
  EXPECT_EQ(Granted("a1"), "0x3 1x3");
  Loaded("a3", 0);
  EXPECT_EQ(Granted("a3"), "2x3 3x3");
  Loaded("a2", 0);
  EXPECT_EQ(Granted("a2"), "4x3 5x3");
}

TEST_F(InboxTest, ManyLongPromptsTakeSeveralGrants) {
  Use(SmallConfig(4, 2));
  Publish(0);
  Join("a1");
  Loaded("a1", 0);
  for (std::uint64_t g = 0; g < 4; ++g) {
    store::GroupRow row = RowOf(g);
    row.prompt_ids.assign(900'000, 5);
    inbox_->AddGroup(row, std::nullopt, std::nullopt);
  }
  Pass(4 * kSecond, {"a1"});
  effects_ = {};
  inbox_->Open(1, now_, &effects_);
  EXPECT_EQ(GrantsTo("a1").size(), 2u);
  EXPECT_EQ(Granted("a1"), "0x2 1x2 2x2 3x2");
}

/// Random schedules of an asynchronous run: grants, deliveries and steps in any order.
TEST_F(InboxTest, LagNeverExceedsTheLimitInAnyCompletionOrder) {
  for (int seed = 0; seed < 300; ++seed) {
    std::mt19937 random(static_cast<unsigned>(seed));
    const int max_lag = static_cast<int>(random() % 4);
    configs::Config config = SmallConfig(1 + static_cast<int>(random() % 3), 2, max_lag);
    Use(config);
    std::uint32_t version = 0;
    Publish(version);
    JoinWorker("w", 100);
    const std::vector<std::string> actors = {"a", "b", "c"};
    std::map<std::string, std::uint32_t> loaded;
    struct Work {
      std::uint64_t grp;
      std::uint32_t sample, version;
      int attempt;
      std::string actor;
    };
    std::vector<Work> work;
    const auto collect = [&] {
      for (const std::string& a : actors) {
        for (const wire::Grant& grant : GrantsTo(a)) {
          for (const auto& g : grant.groups) {
            for (const std::uint32_t s : g.samples)
              work.push_back({g.grp, s, grant.version, g.attempt, a});
          }
        }
      }
      const auto requests = RequestsTo("w");
      for (const auto& request : requests) Hear("w", ResultOf(request));
    };
    for (const std::string& a : actors) Join(a, 2 + static_cast<int>(random() % 6));
    std::int64_t step = 1;
    Open(step);
    collect();
    for (int turn = 0; turn < 2000 && step < 12; ++turn) {
      const std::string& actor = actors[random() % actors.size()];
      if (random() % 4 == 0 || work.empty()) {
        if (loaded[actor] != version || random() % 8 == 0) {
          loaded[actor] = version;
          Loaded(actor, version);
          collect();
        }
      } else {
        const std::size_t i = random() % work.size();
        const Work w = work[i];
        work.erase(work.begin() + static_cast<std::ptrdiff_t>(i));
        Deliver(w.actor, w.grp, w.sample, w.version, w.attempt);
        collect();
      }
      if (!inbox_->Complete(step) || random() % 3 == 0) continue;
      for (const ScoredGroup& group : Take(step).groups) {
        for (const store::RolloutRow& row : group.samples) {
          EXPECT_LE(version - row.version, static_cast<std::uint32_t>(max_lag))
              << row.Name() << " seed " << seed;
        }
      }
      Publish(++version);
      collect();
      Open(++step);
      collect();
    }
    EXPECT_EQ(step, 12) << "seed " << seed << ": the run stood still";
  }
}

}  // namespace
}  // namespace temper::learner
