// Who is sent a full set from device to device, and what ends a group.
#include "tests/engine/memory_fabric.h"
#include "tests/learner/core/inbox_fixture.h"

namespace temper::learner {
namespace {

using engine::MemoryFabric;

class InboxFabricTest : public InboxTest {
 protected:
  void SetUp() override {
    fabric_ = memory_ = std::make_shared<MemoryFabric>(std::make_shared<engine::MemoryHall>(), "l");
    Use(SmallConfig());
    Publish(0);
  }
  void JoinOn(const std::string& actor, const std::string& device,
              const std::string& kind = "memory") {
    wire::Hello hello = HelloOf(actor, wire::Role::kActor, 64);
    hello.fabric = kind;
    hello.device = device;
    Hear(actor, hello);
  }
  /// "1/3" to the peer in the last call; "": its manifest names no group; "none": no manifest.
  std::string RankOf(const std::string& peer) const {
    const auto manifests = To<wire::WeightsManifest>(peer, wire::Kind::kWeightsManifest);
    if (manifests.size() != 1) return "none";
    const auto& fabric = manifests[0].fabric;
    if (!fabric) return "";
    EXPECT_TRUE(effects_.broadcast && effects_.broadcast->group.id == fabric->group);
    return std::to_string(fabric->rank) + "/" + std::to_string(fabric->ranks);
  }
  std::string Group() const { return effects_.broadcast ? effects_.broadcast->group.id : ""; }
  void End(const std::string& problem = "") {
    effects_ = {};
    inbox_->BroadcastEnded(problem, &effects_);
  }
  std::string Notes() const {
    std::string all;
    for (const std::string& note : effects_.notes) all += note + "\n";
    return all;
  }

  std::shared_ptr<MemoryFabric> memory_;
};

TEST_F(InboxFabricTest, AGroupHoldsEachDeviceOnceAndNeitherTheLearnersNorOtherKinds) {
  JoinOn("a1", "d1");
  JoinOn("a2", "d2");
  JoinOn("a3", "d1");  // a second process on the same device
  JoinOn("a4", "l");   // on the learner's
  JoinOn("a5", "d5", "nccl-1");
  Join("a6");
  JoinWorker("w1");
  EXPECT_EQ(RankOf("a6"), "none");
  Publish(1);
  EXPECT_EQ(RankOf("a1"), "1/3");
  EXPECT_EQ(RankOf("a2"), "2/3");
  for (const char* other : {"a3", "a4", "a5", "a6"}) EXPECT_EQ(RankOf(other), "") << other;
  ASSERT_TRUE(effects_.broadcast);
  EXPECT_EQ(effects_.broadcast->group.rank, 0);
  EXPECT_EQ(effects_.broadcast->group.ranks, 3);
  EXPECT_EQ(effects_.broadcast->weights->version, 1u);
}

TEST_F(InboxFabricTest, WithoutAMemberOrAFabricThereIsNoBroadcast) {
  Join("a1");
  Publish(1);
  EXPECT_EQ(RankOf("a1"), "");
  EXPECT_FALSE(effects_.broadcast);
  fabric_ = nullptr;
  Use(SmallConfig());
  Publish(0);
  JoinOn("a1", "d1");
  Publish(1);
  EXPECT_EQ(RankOf("a1"), "");
  EXPECT_FALSE(effects_.broadcast);
}

TEST_F(InboxFabricTest, AGroupStaysUntilSomebodyJoinsOrLeaves) {
  JoinOn("a1", "d1");
  JoinOn("a2", "d2");
  Publish(1);
  const std::string first = Group();
  EXPECT_EQ(first.size(), engine::kFabricId);
  End();
  Publish(2);
  EXPECT_EQ(Group(), first);
  End();
  JoinOn("a3", "d3");
  EXPECT_EQ(RankOf("a3"), "");  // it comes late: it pulls
  Publish(3);
  const std::string second = Group();
  EXPECT_NE(second, first);
  EXPECT_EQ(RankOf("a3"), "3/4");
  End();
  Hear("a1", wire::Goodbye{"stopped", false});
  Publish(4);
  EXPECT_NE(Group(), second);
  EXPECT_EQ(RankOf("a2"), "1/3");
  EXPECT_EQ(RankOf("a3"), "2/3");
}

TEST_F(InboxFabricTest, VersionsThatTravelByDeltaArePulled) {
  JoinOn("a1", "d1");
  effects_ = {};
  auto delta = std::make_shared<WeightDelta>();
  delta->pieces = {{wire::DeltaForm::kSame, 0, 0}};
  inbox_->Publish(WeightsOf(1), &effects_, delta);
  EXPECT_EQ(RankOf("a1"), "");
  EXPECT_FALSE(effects_.broadcast);
}

TEST_F(InboxFabricTest, AVersionPublishedWhileAnotherTravelsIsPulled) {
  JoinOn("a1", "d1");
  Publish(1);
  Publish(2);
  EXPECT_EQ(RankOf("a1"), "");
  EXPECT_FALSE(effects_.broadcast);
  // Its pulls say nothing of the broadcast under way.
  Hear("a1", wire::WeightsPull{2, 0, 16});
  EXPECT_FALSE(effects_.stop_broadcast);
  End();
  Publish(3);
  EXPECT_EQ(RankOf("a1"), "1/2");
}

TEST_F(InboxFabricTest, AMemberThatIsGoneIsNotWaitedFor) {
  JoinOn("a1", "d1");
  JoinOn("a2", "d2");
  Publish(1);
  const std::string first = Group();
  effects_ = {};
  inbox_->PeerGone("a2", &effects_);
  EXPECT_TRUE(effects_.stop_broadcast);
  End("stopped");
  EXPECT_NE(Notes().find("weights v1 to the devices of a1: a2 is gone; they are pulled"),
            std::string::npos)
      << Notes();
  Publish(2);
  EXPECT_EQ(RankOf("a1"), "1/2");
  EXPECT_NE(Group(), first);
}

TEST_F(InboxFabricTest, AMemberThatPullsHasLeftTheGroup) {
  JoinOn("a1", "d1");
  JoinOn("a2", "d2");
  Publish(1);
  const std::string first = Group();
  Hear("a2", wire::WeightsPull{1, 0, 16});
  EXPECT_EQ(To("a2", wire::Kind::kWeightsChunk).size(), 1u);
  EXPECT_TRUE(effects_.stop_broadcast);
  Hear("a2", wire::WeightsPull{1, 0, 16});
  EXPECT_FALSE(effects_.stop_broadcast);  // once
  End("stopped");
  EXPECT_NE(Notes().find("a2 pulls it"), std::string::npos) << Notes();
  Publish(2);
  EXPECT_EQ(RankOf("a2"), "2/3");
  EXPECT_NE(Group(), first);
  // Behind the end too: what it got was not the set.
  End();
  const std::string second = Group();
  Hear("a1", wire::WeightsPull{2, 0, 16});
  EXPECT_FALSE(effects_.stop_broadcast);
  Publish(3);
  EXPECT_NE(Group(), second);
}

TEST_F(InboxFabricTest, ThreeFailuresInARowAreTheLast) {
  JoinOn("a1", "d1");
  for (std::uint32_t version : {1, 2}) {
    Publish(version);
    End("waited 20 s for 1 receivers to join");
    EXPECT_NE(Notes().find("a1: waited 20 s for 1 receivers to join; they are pulled\n"),
              std::string::npos)
        << Notes();
  }
  Publish(3);
  End();  // one that succeeds
  for (std::uint32_t version : {4, 5, 6}) {
    Publish(version);
    EXPECT_EQ(RankOf("a1"), "1/2");
    End("no");
  }
  EXPECT_NE(Notes().find("they are pulled, and all that follow"), std::string::npos) << Notes();
  Publish(7);
  EXPECT_EQ(RankOf("a1"), "");
}

TEST_F(InboxFabricTest, ActorsThatAreKilledAreNoFailureOfTheFabric) {
  for (std::uint32_t version = 1; version <= 5; ++version) {
    JoinOn("a1", "d1");
    Publish(version);
    EXPECT_EQ(RankOf("a1"), "1/2") << version;
    effects_ = {};
    inbox_->PeerGone("a1", &effects_);
    End("stopped");
  }
}

TEST_F(InboxFabricTest, WithoutAnIdAllPull) {
  JoinOn("a1", "d1");
  memory_->fault = MemoryFabric::Fault::kAbsent;
  Publish(1);
  EXPECT_EQ(RankOf("a1"), "");
  EXPECT_NE(Notes().find("no group to be had"), std::string::npos);
  memory_->fault = MemoryFabric::Fault::kNone;
  Publish(2);
  EXPECT_EQ(RankOf("a1"), "1/2");
}

TEST_F(InboxFabricTest, AnActorThatComesBackOnAnotherConnectionIsInTheNextGroup) {
  JoinOn("a1", "d1");
  Publish(1);
  const std::string first = Group();
  wire::Hello hello = HelloOf("a1", wire::Role::kActor, 64);
  hello.fabric = "memory";
  hello.device = "d1";
  Hear("a1-again", hello);
  EXPECT_TRUE(effects_.stop_broadcast);
  EXPECT_EQ(RankOf("a1-again"), "");
  End("stopped");
  Publish(2);
  EXPECT_EQ(RankOf("a1-again"), "1/2");
  EXPECT_NE(Group(), first);
}

}  // namespace
}  // namespace temper::learner
