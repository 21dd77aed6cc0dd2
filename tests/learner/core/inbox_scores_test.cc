#include <gtest/gtest.h>

#include "learner/core/inbox.h"
#include "tests/learner/core/inbox_fixture.h"

namespace temper::learner {
namespace {

TEST_F(InboxTest, AFailedScoreDropsTheSampleWithItsStatus) {
  Start();
  DeliverGroup(0, 0);
  wire::ScoreResult result = ResultOf(RequestsTo("w1").at(0));
  result.samples[1] = {
      1, std::nullopt, "timeout", {{"r", std::nullopt, 1.0, "timeout", "1 s passed", 0, "", 0}}};
  result.samples[2] = {2, std::nullopt, "not_applicable", {}};
  Hear("w1", result);
  const auto writes = WritesOf<ScoreWrite>();
  ASSERT_EQ(writes.size(), 3u);
  EXPECT_EQ(writes[0].drop_reason, "");
  EXPECT_EQ(writes[1].drop_reason, "timeout");
  EXPECT_EQ(writes[1].parts[0].message, "1 s passed");
  EXPECT_EQ(writes[2].drop_reason, "");
  EXPECT_FALSE(writes[2].score.has_value());
  const ServiceStats stats = inbox_->TakeStats();
  ASSERT_EQ(stats.reward_failures.size(), 1u);
  EXPECT_EQ(stats.reward_failures[0], (std::pair<std::string, int>{"timeout", 1}));
}

TEST_F(InboxTest, WhatABatchWaitsForScoresBeginsWithItsLastRollout) {
  Start();
  std::vector<wire::ScoreRequest> requests;
  for (std::uint64_t grp = 0; grp < 2; ++grp) {
    Tick(kSecond);
    DeliverGroup(grp, 0);
    requests.push_back(RequestsTo("w1").at(0));
  }
  Tick(kSecond / 4);
  Hear("w1", ResultOf(requests[1]));
  EXPECT_EQ(inbox_->TakeStats().reward_wait_seconds, 0);
  Tick(kSecond / 4);
  Hear("w1", ResultOf(requests[0]));
  ASSERT_TRUE(inbox_->Complete(1));
  EXPECT_DOUBLE_EQ(inbox_->TakeStats().reward_wait_seconds, 0.5);
}

TEST_F(InboxTest, OnErrorScoreKeepsTheStatusBesideTheScore) {
  configs::Config config = SmallConfig();
  config.reward.on_error = "score";
  config.reward.on_error_score = -2;
  Use(config);
  Start();
  DeliverGroup(0, 0);
  wire::ScoreResult result = ResultOf(RequestsTo("w1").at(0));
  result.samples[1].score.reset();
  result.samples[1].status = "budget";
  Hear("w1", result);
  EXPECT_EQ(WritesOf<ScoreWrite>()[1].score, -2.0);
  EXPECT_EQ(WritesOf<ScoreWrite>()[1].status, "budget");
  EXPECT_EQ(WritesOf<ScoreWrite>()[1].drop_reason, "");
}

TEST_F(InboxTest, OnErrorStopNamesRolloutScriptLineAndMessage) {
  configs::Config config = SmallConfig();
  config.reward.on_error = "stop";
  Use(config);
  Start(17);
  DeliverGroup(0, 17);
  wire::ScoreResult result = ResultOf(RequestsTo("w1").at(0));
  result.samples[2] = {
      2,
      std::nullopt,
      "script_error",
      {{"x.lua", std::nullopt, 1.0, "script_error", "attempt to index nil", 3, "", 0}}};
  Hear("w1", result);
  EXPECT_EQ(FailureText(),
            "user: g0.s2@v17: reward script_error: x.lua:3: attempt to index nil (reward.on_error "
            "is \"stop\")");
}

TEST_F(InboxTest, AScoreRequestOfALostWorkerGoesToAnother) {
  Start();
  DeliverGroup(0, 0);
  const wire::ScoreRequest first = RequestsTo("w1").at(0);
  JoinWorker("w2");
  effects_ = {};
  inbox_->PeerGone("w1", &effects_);
  ASSERT_EQ(RequestsTo("w2").size(), 1u);
  const wire::ScoreRequest second = RequestsTo("w2")[0];
  EXPECT_NE(first.id, second.id);
  Hear("w2", ResultOf(first));  // an answer to a request that is void
  EXPECT_EQ(Writes(), 0u);
  Hear("w2", ResultOf(second));
  EXPECT_EQ(WritesOf<ScoreWrite>().size(), 3u);
  Hear("w2", ResultOf(second));
  EXPECT_EQ(Writes(), 0u);
}

TEST_F(InboxTest, ChangedScriptsReachTheWorkersThereAndThoseToCome) {
  const std::vector<std::pair<std::string, std::string>> files = {{"/x.lua", "new"}};
  Join("a1");
  JoinWorker("w1");
  effects_ = {};
  inbox_->UseScripts(files, &effects_);
  const auto told = To<wire::Scripts>("w1", wire::Kind::kScripts);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].files, files);
  EXPECT_TRUE(To("a1").empty());
  JoinWorker("w2");
  EXPECT_EQ(To<wire::Welcome>("w2", wire::Kind::kWelcome).at(0).files, files);
}

TEST_F(InboxTest, AGroupThatEndsEveryWorkerIsUnavailable) {
  Publish(0);
  Join("a1");
  JoinWorker("w0");
  Open(1);
  Loaded("a1", 0);
  DeliverGroup(0, 0);
  for (int i = 0; i < Inbox::kMaxScoreAttempts; ++i) {
    JoinWorker("w" + std::to_string(i + 1));
    effects_ = {};
    inbox_->PeerGone("w" + std::to_string(i), &effects_);
  }
  ASSERT_EQ(WritesOf<ScoreWrite>().size(), 3u);
  EXPECT_EQ(WritesOf<ScoreWrite>()[0].drop_reason, "unavailable");
}

TEST_F(InboxTest, AWorkerThatNeverAnswersIsReplacedThoughItsHeartBeats) {
  Publish(0);
  Join("a1");
  JoinWorker("w1");
  JoinWorker("w2", 1);
  Open(1);
  Loaded("a1", 0);
  DeliverGroup(0, 0);
  ASSERT_EQ(RequestsTo("w1").size(), 1u);
  std::size_t again = 0;
  for (int s = 0; s < 120 && again == 0; ++s) {
    for (const char* peer : {"a1", "w1", "w2"}) Hear(peer, wire::Heartbeat());
    Tick(kSecond);
    again = RequestsTo("w2").size();
  }
  EXPECT_EQ(again, 1u);
}

TEST_F(InboxTest, AWorkerThatRefusesARequestLosesIt) {
  Start();
  DeliverGroup(0, 0);
  Hear("w1", wire::Refuse{wire::kBadMessage, "what?", std::nullopt});
  JoinWorker("w2");
  EXPECT_EQ(RequestsTo("w2").size(), 1u);
}

TEST_F(InboxTest, TextsThatNoMessageCarriesAreUnavailable) {
  config_.grpo.max_completion_length = 2 << 20;
  Use(config_);
  Start();
  for (std::uint32_t s = 0; s < 3; ++s) {
    wire::Rollout rollout = RolloutOf(0, s, 0);
    rollout.ids.assign(2 << 20, 5);
    rollout.logp.assign(2 << 20, 0.0f);
    Hear("a1", rollout);
  }
  EXPECT_TRUE(RequestsTo("w1").empty());
  ASSERT_EQ(WritesOf<ScoreWrite>().size(), 3u);
  EXPECT_EQ(WritesOf<ScoreWrite>()[0].status, "unavailable");
}

TEST_F(InboxTest, AResultForOtherSamplesIsRefusedAndAskedAgain) {
  Start();
  DeliverGroup(0, 0);
  wire::ScoreResult result = ResultOf(RequestsTo("w1").at(0));
  result.samples.pop_back();
  Hear("w1", result);
  EXPECT_EQ(RefusalTo("w1"), wire::kBadMessage);
  EXPECT_EQ(Writes(), 0u);
  EXPECT_EQ(RequestsTo("w1").size(), 1u);
}

}  // namespace
}  // namespace temper::learner
