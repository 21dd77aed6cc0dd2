#include "learner/core/inbox.h"

#include <gtest/gtest.h>

#include "tests/learner/core/inbox_fixture.h"

namespace temper::learner {
namespace {

TEST_F(InboxTest, GrantsTheStepsGroupsToAnActorThatHasTheWeights) {
  Publish(3);
  Join("a1");
  EXPECT_EQ(To<wire::Welcome>("a1", wire::Kind::kWelcome).size(), 1u);
  ASSERT_EQ(To<wire::WeightsManifest>("a1", wire::Kind::kWeightsManifest).size(), 1u);
  Open(1);
  EXPECT_EQ(Granted("a1"), "");
  Loaded("a1", 2);
  EXPECT_EQ(Granted("a1"), "");
  Loaded("a1", 3);
  EXPECT_EQ(Granted("a1"), "0x3 1x3");
  const wire::Grant grant = GrantsTo("a1").front();
  EXPECT_EQ(grant.version, 3u);
  EXPECT_EQ(grant.sampling.seed, 7u);
  EXPECT_EQ(grant.sampling.max_new_tokens, 8);
  EXPECT_EQ(grant.sampling.stop_ids, (std::vector<std::int32_t>{1}));
  const auto rows = WritesOf<store::GroupRow>();
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1].granted_version, 3u);
  EXPECT_EQ(rows[1].granted_step, 1);
}

TEST_F(InboxTest, ASynchronousRunGrantsNothingBeforeItsStepIsOpen) {
  Publish(0);
  Join("a1");
  Loaded("a1", 0);
  EXPECT_EQ(Granted("a1"), "");
  Open(1);
  EXPECT_EQ(Granted("a1"), "0x3 1x3");
}

TEST_F(InboxTest, AcknowledgesARolloutOnlyBehindItsWrite) {
  Publish(0);
  Join("a1");
  Open(1);
  Loaded("a1", 0);
  Deliver("a1", 0, 2, 0);
  ASSERT_EQ(WritesOf<RolloutWrite>().size(), 1u);
  const store::RolloutRow row = WritesOf<RolloutWrite>()[0].row;
  EXPECT_EQ(row.Name(), "g0.s2@v0");
  EXPECT_EQ(row.state, "received");
  EXPECT_EQ(row.text, "t2");
  EXPECT_EQ(row.actor, "a1");
  EXPECT_EQ(row.loss_mask, (std::vector<std::uint8_t>{1, 1}));
  EXPECT_TRUE(row.versions.empty());
  ASSERT_EQ(effects_.acks.size(), 1u);
  EXPECT_EQ(effects_.acks[0].second, (wire::RolloutId{0, 2, 0}));
  EXPECT_TRUE(To("a1").empty());
}

TEST_F(InboxTest, StoresARepeatedRolloutOnce) {
  Publish(0);
  Join("a1");
  Open(1);
  Loaded("a1", 0);
  Deliver("a1", 0, 0, 0);
  EXPECT_EQ(Writes(), 1u);
  Deliver("a1", 0, 0, 0);
  EXPECT_EQ(Writes(), 0u);
  EXPECT_EQ(effects_.acks.size(), 1u);
}

TEST_F(InboxTest, CompletesAStepFromRolloutsAndScores) {
  Start();
  DeliverGroup(1, 0);
  ASSERT_EQ(RequestsTo("w1").size(), 1u);
  const wire::ScoreRequest request = RequestsTo("w1")[0];
  EXPECT_EQ(request.grp, 1u);
  EXPECT_EQ(request.step, 1);
  ASSERT_EQ(request.samples.size(), 3u);
  EXPECT_EQ(request.samples[2].completion, "t2");
  EXPECT_EQ(request.prompt, "\"p1\"");
  Hear("w1", ResultOf(request, 0.25));
  ASSERT_EQ(WritesOf<ScoreWrite>().size(), 3u);
  EXPECT_EQ(WritesOf<ScoreWrite>()[1].score, 0.25);
  EXPECT_FALSE(inbox_->Complete(1));
  DeliverGroup(0, 0);
  Hear("w1", ResultOf(RequestsTo("w1").at(0)));
  ASSERT_TRUE(inbox_->Complete(1));
  const std::vector<ScoredGroup> batch = Take(1).groups;
  ASSERT_EQ(batch.size(), 2u);
  EXPECT_EQ(batch[0].grp, 0u);
  EXPECT_EQ(batch[1].samples[2].score, 0.25);
  EXPECT_EQ(batch[1].parts[2][0].name, "r");
  const ServiceStats stats = inbox_->TakeStats();
  EXPECT_EQ(stats.completion_tokens, 12u);
  EXPECT_NEAR(stats.reward_seconds, 60e-6, 1e-12);
  EXPECT_EQ(stats.actors, 1);
  EXPECT_EQ(stats.reward_workers, 1);
}

TEST_F(InboxTest, AnswersAnUnknownMessageAndKeepsServing) {
  Publish(0);
  Join("a1");
  Open(1);
  wire::Message odd;
  odd.kind = 99;
  effects_ = {};
  inbox_->Handle("a1", odd, now_, &effects_);
  EXPECT_EQ(RefusalTo("a1"), wire::kBadMessage);
  odd.kind = static_cast<std::uint16_t>(wire::Kind::kRollout);
  effects_ = {};
  inbox_->Handle("a1", odd, now_, &effects_);
  EXPECT_EQ(RefusalTo("a1"), wire::kBadMessage);
  effects_ = {};
  inbox_->HandleInvalid("nobody", "rubbish", &effects_);
  EXPECT_EQ(RefusalTo("nobody"), wire::kBadMessage);
  Loaded("a1", 0);
  EXPECT_EQ(Granted("a1"), "0x3 1x3");
}

TEST_F(InboxTest, AsksAStrangerForItsHello) {
  Deliver("stranger", 0, 0, 0);
  EXPECT_EQ(RefusalTo("stranger"), wire::kHelloFirst);
  EXPECT_EQ(Writes(), 0u);
}

TEST_F(InboxTest, RefusesAnActorOfOtherNumericsUnlessMixed) {
  wire::Hello hello = HelloOf("a1", wire::Role::kActor, 8);
  hello.numerics = {"canon-9/fp32/cache-fp32"};
  Hear("a1", hello);
  EXPECT_EQ(RefusalTo("a1"), wire::kNotWelcome);
  const std::string why = To<wire::Refuse>("a1", wire::Kind::kRefuse)[0].reason;
  EXPECT_NE(why.find("canon-9/fp32/cache-fp32"), std::string::npos) << why;
  EXPECT_NE(why.find("canon-1/fp32/cache-fp32"), std::string::npos) << why;
  configs::Config mixed = SmallConfig();
  mixed.numerics = "mixed";
  Use(mixed);
  Hear("a1", hello);
  EXPECT_EQ(To<wire::Welcome>("a1", wire::Kind::kWelcome).size(), 1u);
  ASSERT_FALSE(effects_.notes.empty());
}

TEST_F(InboxTest, RefusesRolloutsNobodyGrantedAndSaysWhich) {
  Publish(0);
  Join("a1");
  Open(1);
  Loaded("a1", 0);
  const auto refused = [&](wire::Rollout rollout) {
    Hear("a1", rollout);
    const auto refusals = To<wire::Refuse>("a1", wire::Kind::kRefuse);
    return refusals.size() == 1 && refusals[0].code == wire::kNotTaken &&
           refusals[0].rollout == rollout.id && Writes() == 0 && effects_.acks.empty();
  };
  EXPECT_TRUE(refused(RolloutOf(2, 0, 0)));  // beyond the window
  EXPECT_TRUE(refused(RolloutOf(0, 3, 0)));  // no such sample
  wire::Rollout other = RolloutOf(0, 0, 0);
  other.session = 5;
  EXPECT_TRUE(refused(other));
  EXPECT_TRUE(refused(RolloutOf(0, 0, 0, 1)));  // no such attempt yet
}

TEST_F(InboxTest, RolloutsThatBreakTheContractAreHandedOutAgain) {
  Publish(0);
  Join("a1");
  Open(1);
  Loaded("a1", 0);
  wire::Rollout rollout = RolloutOf(0, 0, 0);
  rollout.ids = {100, 1};  // past the tokenizer
  Hear("a1", rollout);
  EXPECT_EQ(RefusalTo("a1"), wire::kNotTaken);
  EXPECT_EQ(Granted("a1"), "0x3.a1");
  rollout = RolloutOf(1, 0, 0);
  rollout.finish = "error";
  Hear("a1", rollout);
  EXPECT_EQ(Granted("a1"), "1x3.a1");
  rollout = RolloutOf(1, 0, 0, 1);
  rollout.ids.assign(9, 5);
  rollout.logp.assign(9, 0.0f);
  Hear("a1", rollout);
  EXPECT_EQ(Granted("a1"), "1x3.a2");
}

TEST_F(InboxTest, ASynchronousRunStoresButNeverTrainsAnotherVersion) {
  Publish(4);
  Join("a1");
  Open(1);
  Loaded("a1", 4);
  Deliver("a1", 0, 0, 3);
  ASSERT_EQ(WritesOf<RolloutWrite>().size(), 1u);
  EXPECT_EQ(WritesOf<RolloutWrite>()[0].drop_reason, "wrong_version");
  EXPECT_EQ(Granted("a1"), "0x3.a1");
}

TEST_F(InboxTest, ServesWeightsInChunksOfTheCurrentVersionOnly) {
  Publish(1);
  Join("a1");
  Hear("a1", wire::WeightsPull{1, 4, 8});
  const auto chunks = To<wire::WeightsChunk>("a1", wire::Kind::kWeightsChunk);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].data.view.size(), 8u);
  EXPECT_EQ(chunks[0].offset, 4u);
  Hear("a1", wire::WeightsPull{1, 12, 8});  // 4 bytes past the end
  EXPECT_EQ(RefusalTo("a1"), wire::kBadMessage);
  Publish(2);
  EXPECT_EQ(To<wire::WeightsManifest>("a1", wire::Kind::kWeightsManifest).size(), 1u);
  Hear("a1", wire::WeightsPull{1, 4, 8});
  EXPECT_EQ(RefusalTo("a1"), wire::kVersionGone);
}

TEST_F(InboxTest, AWaitNamesWhomItWaitedFor) {
  Publish(0);
  Open(1);
  Pass(40 * kSecond, {});
  EXPECT_EQ(FailureText(),
            "machine: step 1: waited 31 s (wire.peer_timeout_s) for an actor; 6 samples are not "
            "generated; none ever joined");
  effects_ = {};
  Use(SmallConfig());
  Publish(0);
  Join("a1");
  Open(1);
  Loaded("a1", 0);
  for (std::uint64_t g = 0; g < 2; ++g) {
    DeliverGroup(g, 0);
  }
  Pass(40 * kSecond, {"a1"});
  EXPECT_EQ(FailureText(),
            "machine: step 1: waited 31 s (wire.peer_timeout_s) for a reward worker; 2 groups are "
            "not scored; none ever joined");
}

TEST_F(InboxTest, AnActorThatLivesIsWaitedFor) {
  Publish(0);
  Join("a1");
  Open(1);
  Loaded("a1", 0);
  Pass(600 * kSecond, {"a1"});
  EXPECT_EQ(FailureText(), "");
}

TEST_F(InboxTest, HeartbeatsGoToEveryPeerOnceASecond) {
  Join("a1");
  JoinWorker("w1");
  Tick(kSecond);
  EXPECT_EQ(To("a1").size(), 1u);
  EXPECT_EQ(To("w1").size(), 1u);
  Tick(kSecond / 2);
  EXPECT_TRUE(To("a1").empty());
}

}  // namespace
}  // namespace temper::learner
