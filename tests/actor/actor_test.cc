#include "actor/actor.h"

#include <gtest/gtest.h>

#include "configs/error.h"
#include "tests/actor/fixture.h"

namespace temper::actor {
namespace {

using wire::Kind;

constexpr std::uint64_t kSession = 77;
constexpr Micros kSecond = 1'000'000;

class ActorTest : public ::testing::Test {
 protected:
  ActorTest() : actor_(TheOptions(), "ipc://learner", now_) {}

  static Options TheOptions() {
    Options options;
    options.name = "a1";
    options.threads = 1;
    options.max_rows = 16;
    return options;
  }
  template <class T>
  void Tell(const T& message) {
    actor_.Handle(message.Encode(), now_);
  }
  /// Everything said since the last call.
  std::vector<wire::Message> Said() {
    std::vector<wire::Message> said(actor_.out().begin(), actor_.out().end());
    actor_.out().clear();
    return said;
  }
  template <class T>
  static std::vector<T> Of(const std::vector<wire::Message>& said, Kind kind) {
    std::vector<T> found;
    for (const wire::Message& m : said) {
      if (m.kind == static_cast<std::uint16_t>(kind)) found.push_back(T::Decode(m));
    }
    return found;
  }
  wire::Welcome TheWelcome(std::uint64_t session = kSession) const {
    wire::Welcome welcome;
    welcome.session = session;
    welcome.run = "test";
    welcome.peer_timeout_s = 30;
    welcome.numerics = "canon-1/fp32/cache-fp32";
    welcome.config = "{}";
    welcome.model_dir = "/m";
    welcome.model_config = config_.raw.dump();
    welcome.valid_ids = 90;
    return welcome;
  }
  /// Publishes `version` and answers the pulls; gives whether it was confirmed.
  bool Load(std::uint32_t version, std::uint64_t session = kSession) {
    const Published published = Publish(config_, session, version);
    Tell(published.manifest);
    for (;;) {
      const auto said = Said();
      for (const auto& loaded : Of<wire::WeightsLoaded>(said, Kind::kWeightsLoaded)) {
        if (loaded.version == version && loaded.session == session) return true;
      }
      const auto pulls = Of<wire::WeightsPull>(said, Kind::kWeightsPull);
      if (pulls.empty()) return false;
      for (const auto& pull : pulls) Tell(published.Chunk(pull));
    }
  }
  wire::Grant TheGrant(std::uint32_t version, std::vector<std::uint64_t> groups,
                       int attempt = 0) const {
    wire::Grant grant;
    grant.session = kSession;
    grant.version = version;
    grant.sampling = {7, 6, 1.0, 1.0, 0.0, 0, {1}};
    for (const std::uint64_t g : groups)
      grant.groups.push_back({g, attempt, {2, 3, static_cast<std::int32_t>(4 + g)}, {0, 1, 2}});
    return grant;
  }
  std::vector<wire::Rollout> Finish() {
    while (actor_.Work(now_)) {
    }
    return Of<wire::Rollout>(Said(), Kind::kRollout);
  }
  void Ready() {
    Tell(TheWelcome());
    Said();
    ASSERT_TRUE(Load(3));
  }
  void Pass(Micros duration) {
    now_ += duration;
    actor_.Tick(now_);
  }

  engine::ModelConfig config_ = engine::TinyConfig();
  Micros now_ = 1000 * kSecond;
  Actor actor_;
};

TEST_F(ActorTest, SaysHelloUntilItIsWelcome) {
  const auto hellos = Of<wire::Hello>(Said(), Kind::kHello);
  ASSERT_EQ(hellos.size(), 1u);
  EXPECT_EQ(hellos[0].name, "a1");
  EXPECT_EQ(hellos[0].rows, 16);
  EXPECT_EQ(hellos[0].numerics, engine::AllNumericsIds());
  Pass(kSecond);
  EXPECT_EQ(Of<wire::Hello>(Said(), Kind::kHello).size(), 1u);
  Tell(TheWelcome());
  Pass(kSecond);
  const auto said = Said();
  EXPECT_TRUE(Of<wire::Hello>(said, Kind::kHello).empty());
  ASSERT_EQ(said.size(), 1u);
  EXPECT_EQ(said[0].kind, static_cast<std::uint16_t>(Kind::kHeartbeat));
}

TEST_F(ActorTest, GeneratesWhatTheEngineAloneWouldBitForBit) {
  Ready();
  Tell(TheGrant(3, {41, 42}));
  const auto rollouts = Finish();
  ASSERT_EQ(rollouts.size(), 6u);

  auto weights = std::make_shared<engine::Weights>(config_);
  const Published published = Publish(config_, kSession, 3);
  for (const auto& t : published.manifest.tensors) {
    std::vector<float> values((t.end - t.begin) / 4);
    std::memcpy(values.data(), published.bytes.data() + t.begin, t.end - t.begin);
    weights->Set(t.name, values);
  }
  engine::EngineOptions options;
  options.valid_ids = 90;
  engine::Engine engine(weights, options);
  for (const wire::Rollout& r : rollouts) {
    EXPECT_EQ(r.version, 3u);
    EXPECT_TRUE(r.versions.empty());
    EXPECT_EQ(r.session, kSession);
    engine.Add(
        {r.id.grp, {2, 3, static_cast<std::int32_t>(4 + r.id.grp)}, {r.id.sample}, 7, 6, {}, {1}});
    std::vector<engine::FinishedSample> finished;
    while (engine.Step(&finished)) {
    }
    ASSERT_EQ(finished.size(), 1u);
    EXPECT_EQ(finished[0].ids, r.ids);
    EXPECT_EQ(finished[0].logp, r.logp);
    EXPECT_EQ(engine::FinishReasonName(finished[0].finish), r.finish);
  }
}

TEST_F(ActorTest, RepeatsARolloutUntilItIsAcknowledged) {
  Ready();
  Tell(TheGrant(3, {41}));
  const auto rollouts = Finish();
  ASSERT_EQ(rollouts.size(), 3u);
  Tell(wire::Ack{{rollouts[0].id, rollouts[2].id}});
  now_ += Actor::kRepeat + kSecond;
  Tell(wire::Heartbeat());
  actor_.Tick(now_);
  const auto again = Of<wire::Rollout>(Said(), Kind::kRollout);
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].id, rollouts[1].id);
  EXPECT_EQ(again[0].logp, rollouts[1].logp);
  Tell(wire::Refuse{wire::kNotTaken, "", rollouts[1].id});
  now_ += Actor::kRepeat + kSecond;
  Tell(wire::Heartbeat());
  actor_.Tick(now_);
  EXPECT_TRUE(Of<wire::Rollout>(Said(), Kind::kRollout).empty());
}

TEST_F(ActorTest, RepeatsNothingToALearnerThatPauses) {
  Ready();
  Tell(TheGrant(3, {41}));
  Finish();
  for (int s = 0; s < 20; ++s) Pass(kSecond);
  EXPECT_TRUE(Of<wire::Rollout>(Said(), Kind::kRollout).empty());
  Tell(wire::Heartbeat());
  Pass(kSecond);
  EXPECT_EQ(Of<wire::Rollout>(Said(), Kind::kRollout).size(), 3u);
}

TEST_F(ActorTest, AfterALostConnectionItSaysWhatItHoldsAndDeliversAgain) {
  Ready();
  Tell(TheGrant(3, {41}, 2));
  const auto before = Finish();
  now_ += kSecond;
  Tell(wire::Refuse{wire::kHelloFirst, "", std::nullopt});
  Tell(wire::Refuse{wire::kHelloFirst, "", std::nullopt});
  const auto hellos = Of<wire::Hello>(Said(), Kind::kHello);
  ASSERT_EQ(hellos.size(), 1u);
  EXPECT_EQ(hellos[0].session, kSession);
  EXPECT_EQ(hellos[0].held, (std::vector<std::pair<std::uint64_t, std::int32_t>>{{41, 2}}));
  Tell(TheWelcome());
  const auto said = Said();
  EXPECT_EQ(Of<wire::Rollout>(said, Kind::kRollout).size(), before.size());
  EXPECT_EQ(Of<wire::WeightsLoaded>(said, Kind::kWeightsLoaded).size(), 1u);
}

TEST_F(ActorTest, TheWorkOfAnEarlierLearnerProcessIsVoid) {
  Ready();
  Tell(TheGrant(3, {41, 42}));
  actor_.Work(now_);
  Said();
  Tell(TheWelcome(78));
  EXPECT_TRUE(Finish().empty());
  Tell(TheGrant(3, {43}));  // still of the former session
  EXPECT_TRUE(Finish().empty());
  // The same version number may mean other weights now: they are pulled again.
  EXPECT_TRUE(Load(3, 78));
}

TEST_F(ActorTest, AGrantWaitsForTheWeightsItNames) {
  Ready();
  Tell(TheGrant(4, {41}));
  EXPECT_TRUE(Finish().empty());
  EXPECT_TRUE(Load(4));
  const auto rollouts = Finish();
  ASSERT_EQ(rollouts.size(), 3u);
  EXPECT_EQ(rollouts[0].version, 4u);
}

TEST_F(ActorTest, NewWeightsTakeEffectAtATokenBoundary) {
  Ready();
  wire::Grant grant = TheGrant(3, {41});
  grant.sampling.stop_ids = {};
  Tell(grant);
  actor_.Work(now_);
  actor_.Work(now_);
  EXPECT_TRUE(Load(4));
  const auto rollouts = Finish();
  ASSERT_EQ(rollouts.size(), 3u);
  for (const auto& r : rollouts) {
    EXPECT_EQ(r.version, 3u);
    EXPECT_EQ(r.versions, (std::vector<std::uint32_t>{3, 3, 4, 4, 4, 4}));
  }
}

TEST_F(ActorTest, AFurtherAttemptOfARunningGroupReplacesIt) {
  Ready();
  Tell(TheGrant(3, {41}));
  actor_.Work(now_);
  Said();
  Tell(TheGrant(3, {41}, 1));
  const auto rollouts = Finish();
  ASSERT_EQ(rollouts.size(), 3u);
  for (const auto& r : rollouts) EXPECT_EQ(r.id.attempt, 1);
}

TEST_F(ActorTest, ASilentLearnerIsGivenUpByName) {
  Ready();
  Pass(29 * kSecond);
  try {
    Pass(2 * kSecond);
    FAIL() << "it waits for ever";
  } catch (const MachineError& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("ipc://learner"), std::string::npos) << what;
    EXPECT_NE(what.find("31 s"), std::string::npos) << what;
  }
}

TEST_F(ActorTest, ConfirmsAgainWhatTheLearnerOffersAgain) {
  Ready();
  Tell(Publish(config_, kSession, 3).manifest);
  const auto loaded = Of<wire::WeightsLoaded>(Said(), Kind::kWeightsLoaded);
  ASSERT_EQ(loaded.size(), 1u);
  EXPECT_EQ(loaded[0].version, 3u);
}

TEST_F(ActorTest, ItsCanaryIsAFunctionOfTheWeights) {
  Tell(TheWelcome());
  Said();
  const auto canary = [&](std::uint32_t version) {
    const Published published = Publish(config_, kSession, version);
    Tell(published.manifest);
    for (;;) {
      const auto said = Said();
      const auto loaded = Of<wire::WeightsLoaded>(said, Kind::kWeightsLoaded);
      if (!loaded.empty()) return loaded[0].canary.value();
      for (const auto& pull : Of<wire::WeightsPull>(said, Kind::kWeightsPull)) {
        Tell(published.Chunk(pull));
      }
    }
  };
  const std::uint32_t first = canary(3), second = canary(4);
  EXPECT_NE(first, second);
  EXPECT_EQ(canary(3), first);
}

TEST_F(ActorTest, WeightsThatTheLearnerFindsWrongArePulledAgainWhole) {
  Ready();
  Tell(wire::Refuse{wire::kBadWeights, "canary", std::nullopt});
  Tell(TheGrant(3, {41}));
  EXPECT_TRUE(Finish().empty());  // not before they are there
  EXPECT_TRUE(Load(3));
  EXPECT_EQ(Finish().size(), 3u);
}

TEST_F(ActorTest, ItsHeartbeatsListWhatItHolds) {
  Ready();
  Tell(TheGrant(3, {41}));
  Tell(TheGrant(4, {42}, 1));  // waits for weights
  Pass(kSecond);
  const auto beats = Of<wire::Heartbeat>(Said(), Kind::kHeartbeat);
  ASSERT_EQ(beats.size(), 1u);
  EXPECT_EQ(beats[0].held, (wire::Held{{41, 0}, {42, 1}}));
  const auto rollouts = Finish();
  Pass(kSecond);  // finished, but not acknowledged
  EXPECT_EQ(Of<wire::Heartbeat>(Said(), Kind::kHeartbeat).at(0).held,
            (wire::Held{{41, 0}, {42, 1}}));
  for (const auto& r : rollouts) Tell(wire::Ack{{r.id}});
  Pass(kSecond);
  EXPECT_EQ(Of<wire::Heartbeat>(Said(), Kind::kHeartbeat).at(0).held, (wire::Held{{42, 1}}));
}

TEST_F(ActorTest, ADrainDeliversWhatIsFinishedAndGivesUpTheRest) {
  Ready();
  Tell(TheGrant(3, {41}));
  const auto rollouts = Finish();
  Tell(TheGrant(3, {42}));
  actor_.Work(now_);
  actor_.Drain();
  EXPECT_FALSE(actor_.Work(now_));
  Tell(TheGrant(3, {43}));
  EXPECT_FALSE(actor_.Work(now_));
  EXPECT_FALSE(actor_.delivered());
  for (const auto& r : rollouts) Tell(wire::Ack{{r.id}});
  EXPECT_TRUE(actor_.delivered());
}

TEST_F(ActorTest, SaysOnceThatTheLearnerIsSilentAndOnceThatItIsBack) {
  Ready();
  testing::internal::CaptureStderr();
  for (int s = 0; s < 9; ++s) Pass(kSecond);
  Tell(wire::Heartbeat());
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("no word from the learner at ipc://learner for 6 s"), log.npos) << log;
  EXPECT_EQ(log.find("no word"), log.rfind("no word")) << log;
  EXPECT_NE(log.find("back after 9 s"), log.npos) << log;
}

TEST_F(ActorTest, ALearnerThatCannotReadItsHelloIsNoLearnerForIt) {
  for (int i = 1; i < Actor::kHelloRefusals; ++i) {
    Tell(wire::Refuse{wire::kBadMessage, "version 2", std::nullopt});
  }
  EXPECT_THROW(Tell(wire::Refuse{wire::kBadMessage, "version 2", std::nullopt}), UserError);
}

TEST_F(ActorTest, EndsWithItsLearner) {
  Ready();
  Tell(wire::Goodbye{"the run is over", false});
  EXPECT_TRUE(actor_.done());
  EXPECT_THROW(Tell(wire::Goodbye{"disk full", true}), MachineError);
  EXPECT_THROW(Tell(wire::Refuse{wire::kNotWelcome, "numerics", std::nullopt}), UserError);
}

TEST_F(ActorTest, OddMessagesAreNoEnd) {
  Ready();
  wire::Message odd;
  odd.kind = 99;
  actor_.Handle(odd, now_);
  odd.kind = static_cast<std::uint16_t>(Kind::kGrant);
  actor_.Handle(odd, now_);
  Tell(TheGrant(3, {41}));
  EXPECT_EQ(Finish().size(), 3u);
}

}  // namespace
}  // namespace temper::actor
