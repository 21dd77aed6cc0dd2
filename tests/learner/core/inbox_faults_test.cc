// What an inbox does about peers that die, lie, or never got what was sent.
#include "configs/error.h"
#include "tests/learner/core/inbox_fixture.h"

namespace temper::learner {
namespace {

class InboxFaultsTest : public InboxTest {
 protected:
  /// A grant that the actor's heartbeats list, or not.
  void Beat(const std::string& peer, wire::Held held) { Hear(peer, wire::Heartbeat{held}); }
  std::string NotesText() const {
    std::string text;
    for (const std::string& note : effects_.notes) text += note + "\n";
    return text;
  }
  /// An actor process of this name that has the weights: each is another instance.
  void Arrive(const std::string& name, std::uint32_t version = 0) {
    Join(name);
    Loaded(name, version);
  }
  void Die(const std::string& peer) {
    effects_ = {};
    inbox_->PeerGone(peer, &effects_);
  }
};

TEST_F(InboxFaultsTest, AGrantThatNeverArrivedIsGrantedAgain) {
  Publish(0);
  Join("a1");
  Open(1);
  Loaded("a1", 0);
  EXPECT_EQ(Granted("a1"), "0x3 1x3");
  Pass(6 * kSecond, {"a1"});  // heartbeats that say nothing of it change nothing
  EXPECT_EQ(Granted("a1"), "");
  Beat("a1", {{1, 0}});
  EXPECT_EQ(Granted("a1"), "");  // one may have been under way for long
  Beat("a1", {{1, 0}});
  EXPECT_EQ(Granted("a1"), "0x3.a1");
}

TEST_F(InboxFaultsTest, AFreshGrantHasTimeToArrive) {
  Publish(0);
  Join("a1");
  Open(1);
  Loaded("a1", 0);
  for (int i = 0; i < 4; ++i) {
    Beat("a1", {});
    EXPECT_EQ(Granted("a1"), "");
    Tick(kSecond);
  }
}

TEST_F(InboxFaultsTest, AHeldGroupOfAnEarlierAttemptIsNotTheGrantedOne) {
  Publish(0);
  Join("a1");
  Open(1);
  Loaded("a1", 0);
  Pass(6 * kSecond, {"a1"});
  for (int i = 0; i < 2; ++i) Beat("a1", {{0, 1}, {1, 0}});
  EXPECT_EQ(Granted("a1"), "0x3.a1");
}

TEST_F(InboxFaultsTest, ALostScoreRequestIsAskedAgainWithoutCountingAsAWorkersDeath) {
  Publish(0);
  Arrive("a1");
  JoinWorker("w1");
  Open(1);
  for (int round = 0; round < 3 * Inbox::kMaxScoreAttempts; ++round) {
    if (round == 0) {
      for (std::uint32_t s = 0; s < 3; ++s) Deliver("a1", 0, s, 0);
    }
    ASSERT_EQ(RequestsTo("w1").size(), 1u) << round;
    Pass(6 * kSecond, {"a1", "w1"});
    Beat("w1", {});
    Beat("w1", {});
  }
  ASSERT_EQ(RequestsTo("w1").size(), 1u);
  Hear("w1", ResultOf(RequestsTo("w1")[0]));
  ASSERT_EQ(WritesOf<ScoreWrite>().size(), 3u);
  EXPECT_EQ(WritesOf<ScoreWrite>()[0].status, "ok");
}

TEST_F(InboxFaultsTest, AManifestOrConfirmationThatWasLostIsOfferedAgain) {
  Publish(3);
  Join("a1");
  int offers = 0;
  for (int s = 0; s < 12; ++s) {
    Hear("a1", wire::Heartbeat());
    Tick(kSecond);
    offers += static_cast<int>(To("a1", wire::Kind::kWeightsManifest).size());
  }
  EXPECT_EQ(offers, 2);
  Loaded("a1", 3);
  for (int s = 0; s < 12; ++s) {
    Hear("a1", wire::Heartbeat());
    Tick(kSecond);
    EXPECT_TRUE(To("a1", wire::Kind::kWeightsManifest).empty());
  }
}

TEST_F(InboxFaultsTest, APromptThatKillsActorsIsIsolatedAndThenDropped) {
  Use(SmallConfig(4, 3));
  Publish(0);
  Open(1);
  // Group 2 kills whoever holds it; the first two deaths take others along.
  int deaths = 0;
  for (; deaths < 20 && WritesOf<RolloutWrite>().empty(); ++deaths) {
    const std::string name = "a" + std::to_string(deaths);
    Arrive(name);
    const std::string granted = Granted(name);
    ASSERT_NE(granted, "") << deaths;
    if (deaths >= Inbox::kSuspect) {
      EXPECT_EQ(granted.find(' '), granted.npos) << deaths << ": " << granted;  // alone
    }
    if (granted.find("2x3") == granted.npos) {
      // An innocent group that was with it twice: it ends, and is free of suspicion.
      const std::uint64_t grp = std::stoull(granted);
      const int attempt = std::stoi(granted.substr(granted.find(".a") + 2));
      for (std::uint32_t s = 0; s < 3; ++s) Deliver(name, grp, s, 0, attempt);
      effects_ = {};
      // It got the next group meanwhile, and dies with nothing else.
    }
    Tick(1000);
    Die(name);
  }
  EXPECT_GE(deaths, Inbox::kQuarantine);
  const auto writes = WritesOf<RolloutWrite>();
  ASSERT_EQ(writes.size(), 3u);
  for (const RolloutWrite& write : writes) {
    EXPECT_EQ(write.row.grp, 2u);
    EXPECT_EQ(write.drop_reason, "quarantined");
    EXPECT_EQ(write.row.state, "dropped");
  }
  Tick(kSecond);
  EXPECT_NE(NotesText().find("g2: "), std::string::npos) << NotesText();
}

TEST_F(InboxFaultsTest, ActorsThatGoTogetherSuspectNoPrompt) {
  Use(SmallConfig(2, 3));
  Publish(0);
  for (int i = 0; i < 8; ++i) Arrive("a" + std::to_string(i));
  Open(1);
  // Their connections are found dead one after the other, in what was to be sent at one moment.
  for (int i = 0; i < 8; ++i) {
    Die("a" + std::to_string(i));
    EXPECT_TRUE(WritesOf<RolloutWrite>().empty()) << i;
  }
  for (int i = 10; i < 18; ++i) Arrive("a" + std::to_string(i));
  // All silent at once: a network that broke, a learner that slept.
  Tick(Inbox::kSilence + kSecond);
  EXPECT_TRUE(WritesOf<RolloutWrite>().empty());
  Tick(kSecond);
  Arrive("b");
  EXPECT_NE(Granted("b").find(' '), std::string::npos) << Granted("b");  // both: no suspect
}

TEST_F(InboxFaultsTest, AnActorThatComesBackDidNotDie) {
  Publish(0);
  Open(1);
  for (int cut = 0; cut < 3 * Inbox::kQuarantine; ++cut) {
    Arrive("a1");  // the same process on a new connection
    Die("a1");
    EXPECT_TRUE(WritesOf<RolloutWrite>().empty());
  }
  Arrive("a1");
  EXPECT_NE(Granted("a1").find(' '), std::string::npos)
      << Granted("a1");  // both groups: no suspect
}

TEST_F(InboxFaultsTest, AnActorWhoseCanaryDiffersGetsTheWeightsAgainAndThenIsRefused) {
  auto set = std::make_shared<WeightSet>(*WeightsOf(1));
  set->canary = 7;
  effects_ = {};
  inbox_->Publish(set, &effects_);
  Join("a1");
  Join("a2");
  Open(1);
  Hear("a1", wire::WeightsLoaded{kSession, 1, 8});
  EXPECT_EQ(RefusalTo("a1"), wire::kBadWeights);
  EXPECT_EQ(To("a1", wire::Kind::kWeightsManifest).size(), 1u);
  EXPECT_EQ(Granted("a1"), "");
  Hear("a2", wire::WeightsLoaded{kSession, 1, 7});
  EXPECT_NE(Granted("a2"), "");
  Hear("a1", wire::WeightsLoaded{kSession, 1, 8});
  EXPECT_EQ(RefusalTo("a1"), wire::kNotWelcome);
}

TEST_F(InboxFaultsTest, WithoutTheLearnersCanaryTheFirstActorsCounts) {
  Publish(1);
  Join("a1");
  Join("a2");
  Hear("a1", wire::WeightsLoaded{kSession, 1, 8});
  EXPECT_EQ(RefusalTo("a1"), "");
  Hear("a2", wire::WeightsLoaded{kSession, 1, 9});
  EXPECT_EQ(RefusalTo("a2"), wire::kBadWeights);
  Publish(2);
  Hear("a2", wire::WeightsLoaded{kSession, 2, 9});
  EXPECT_EQ(RefusalTo("a2"), "");
}

TEST_F(InboxFaultsTest, APeerOfAnotherRunIsNotWelcome) {
  Publish(0);
  wire::Hello hello = HelloOf("a1", wire::Role::kActor, 8);
  hello.run = "other";
  Hear("a1", hello);
  EXPECT_EQ(RefusalTo("a1"), wire::kNotWelcome);
  EXPECT_TRUE(inbox_->peers().empty());
  hello.run = "";
  Hear("a1", hello);
  EXPECT_EQ(RefusalTo("a1"), "");
}

TEST_F(InboxFaultsTest, TenThousandBadMessagesAreCountedAndDisturbNobody) {
  Publish(0);
  Arrive("a1");
  JoinWorker("w1");
  Open(1);
  std::size_t lines = 0;
  for (int i = 0; i < 10000; ++i) {
    effects_ = {};
    inbox_->HandleInvalid("liar" + std::to_string(i % 3), "wire message: rubbish", &effects_);
    EXPECT_EQ(RefusalTo("liar" + std::to_string(i % 3)), wire::kBadMessage);
    if (i % 5000 == 0) {
      Tick(kSecond);
      lines += effects_.notes.size();
    }
  }
  Tick(kSecond);
  lines += effects_.notes.size();
  EXPECT_LE(lines, 4u);
  std::map<std::string, std::uint64_t> refused;
  for (const auto& [reason, count] : inbox_->TakeStats().refused) refused[reason] = count;
  EXPECT_EQ(refused["bad_message from an unknown peer"], 10000u);
  for (std::uint64_t g = 0; g < 2; ++g) {
    for (std::uint32_t s = 0; s < 3; ++s) Deliver("a1", g, s, 0);
  }
  EXPECT_EQ(RequestsTo("w1").size(), 1u);
}

TEST_F(InboxFaultsTest, ADeltaIsServedToThosePullingIt) {
  Publish(1);
  Join("a1");
  auto next = std::make_shared<WeightSet>(*WeightsOf(2));
  next->tensors[0].sha256 = std::string(64, '1');
  auto base = WeightsOf(1);
  next->bytes = base->bytes;
  next->bytes[3] = std::byte{9};
  const auto delta = MakeDelta(*base, *next);
  ASSERT_TRUE(delta);
  EXPECT_EQ(delta->bytes.size(), 5u);  // a gap of one byte, four of the value
  effects_ = {};
  inbox_->Publish(next, &effects_, delta);
  const auto manifests = To<wire::WeightsManifest>("a1", wire::Kind::kWeightsManifest);
  ASSERT_EQ(manifests.size(), 1u);
  EXPECT_EQ(manifests[0].base, 1u);
  EXPECT_EQ(manifests[0].tensors[0].form, wire::DeltaForm::kPatch);
  Hear("a1", wire::WeightsPull{2, 0, 5, true});
  const auto chunks = To<wire::WeightsChunk>("a1", wire::Kind::kWeightsChunk);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_TRUE(chunks[0].delta);
  Hear("a1", wire::WeightsPull{2, 0, 6, true});
  EXPECT_EQ(RefusalTo("a1"), wire::kBadMessage);
  Publish(5);  // a version was left out: no delta
  EXPECT_FALSE(To<wire::WeightsManifest>("a1", wire::Kind::kWeightsManifest)[0].base);
  Hear("a1", wire::WeightsPull{5, 0, 4, true});
  EXPECT_EQ(RefusalTo("a1"), wire::kVersionGone);
}

TEST(WeightDeltaTest, IsMadeOnlyWhereItIsShorter) {
  auto base = std::make_shared<WeightSet>(*WeightsOf(1, 4096));
  auto next = std::make_shared<WeightSet>(*WeightsOf(2, 4096));
  next->tensors[0].sha256 = std::string(64, '1');
  EXPECT_FALSE(MakeDelta(*base, *next));  // every byte differs
  next->bytes = base->bytes;
  next->bytes[0] = std::byte{77};
  EXPECT_TRUE(MakeDelta(*base, *next));
  next->tensors[0].name = "other";
  EXPECT_FALSE(MakeDelta(*base, *next));
}

}  // namespace
}  // namespace temper::learner
