// Full sets that come beside the socket, and what the actor does when they don't.
#include <gtest/gtest.h>

#include <thread>

#include "actor/actor.h"
#include "tests/actor/fixture.h"
#include "tests/engine/memory_fabric.h"

namespace temper::actor {
namespace {

using engine::MemoryFabric;
using wire::Kind;
using Fault = MemoryFabric::Fault;

class ActorFabricTest : public ::testing::Test {
 protected:
  ~ActorFabricTest() override {
    if (sender_.joinable()) sender_.join();
  }
  void Begin(Fault fault = Fault::kNone, double patience_s = 20) {
    fabric_ = std::make_shared<MemoryFabric>(hall_, "here", patience_s, fault);
    Options options;
    options.name = "a1";
    options.threads = 1;
    options.fabric = fabric_;
    actor_ = std::make_unique<Actor>(options, "tcp://learner", 0);
    wire::Welcome welcome;
    welcome.session = 77;
    welcome.run = "test";
    welcome.numerics = "canon-1/fp32/cache-fp32";
    welcome.config = "{}";
    welcome.model_dir = "/m";
    welcome.model_config = config_.raw.dump();
    welcome.valid_ids = 90;
    Tell(welcome);
  }
  template <class T>
  void Tell(const T& message) {
    actor_->Handle(message.Encode(), 0);
  }
  template <class T>
  std::vector<T> Said(Kind kind) {
    std::vector<T> found;
    for (const wire::Message& m : actor_->out()) {
      if (m.kind == static_cast<std::uint16_t>(kind)) found.push_back(T::Decode(m));
    }
    actor_->out().clear();
    return found;
  }
  static Published With(Published published, const std::string& group) {
    published.manifest.fabric = {group, 1, 2};
    return published;
  }
  /// As the learner would, on a thread of its own.
  void Send(const Published& published) {
    sender_ = std::thread([this, &published] {
      const std::atomic<bool> never{false};
      try {
        learner_.Send({published.manifest.fabric->group, 0, 2}, published.bytes, never);
      } catch (const MachineError&) {
        lost_ = true;
      }
    });
  }
  void AwaitTheEnd() {
    for (int i = 0; i < 20'000 && actor_->receiving(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      actor_->Tick(0);
    }
    EXPECT_FALSE(actor_->receiving());
  }
  /// Answers pulls until the version is confirmed; gives the bytes pulled, -1: never confirmed.
  std::int64_t Serve(const Published& published) {
    std::int64_t bytes = 0;
    for (;;) {
      bool loaded = false;
      std::vector<wire::WeightsPull> pulls;
      for (const wire::Message& m : actor_->out()) {
        if (m.kind == static_cast<std::uint16_t>(Kind::kWeightsLoaded))
          loaded = wire::WeightsLoaded::Decode(m).version == published.manifest.version;
        if (m.kind == static_cast<std::uint16_t>(Kind::kWeightsPull))
          pulls.push_back(wire::WeightsPull::Decode(m));
      }
      actor_->out().clear();
      if (loaded) return bytes;
      if (pulls.empty()) return -1;
      for (const auto& pull : pulls) {
        bytes += pull.length;
        Tell(published.Chunk(pull));
      }
    }
  }

  const std::string group_ = std::string(engine::kFabricId, 'g');
  engine::ModelConfig config_ = engine::TinyConfig();
  std::shared_ptr<engine::MemoryHall> hall_ = std::make_shared<engine::MemoryHall>();
  MemoryFabric learner_{hall_, "there", 1};
  std::shared_ptr<MemoryFabric> fabric_;
  std::unique_ptr<Actor> actor_;
  std::atomic<bool> lost_{false};
  std::thread sender_;
};

TEST_F(ActorFabricTest, SaysWhichDeviceItHas) {
  Begin();
  const auto hellos = Said<wire::Hello>(Kind::kHello);
  ASSERT_EQ(hellos.size(), 1u);
  EXPECT_EQ(hellos[0].fabric, "memory");
  EXPECT_EQ(hellos[0].device, "here");
  Actor without(Options{}, "tcp://learner", 0);
  const wire::Hello hello = wire::Hello::Decode(without.out().front());
  EXPECT_EQ(hello.fabric + hello.device, "");
}

TEST_F(ActorFabricTest, AFullSetThatIsSentIsNotPulled) {
  Begin();
  const Published published = With(Publish(config_, 77, 3), group_);
  Tell(published.manifest);
  EXPECT_TRUE(actor_->receiving());
  EXPECT_TRUE(Said<wire::WeightsPull>(Kind::kWeightsPull).empty());
  Published again = published;  // the learner repeats it to those who say nothing
  again.manifest.fabric.reset();
  Tell(again.manifest);
  EXPECT_TRUE(Said<wire::WeightsPull>(Kind::kWeightsPull).empty());
  Send(published);
  AwaitTheEnd();
  EXPECT_EQ(Serve(published), 0);
  EXPECT_EQ(fabric_->received, 1);
  // The next one over the same group, while the repeated manifest of the first comes late.
  sender_.join();
  Tell(again.manifest);
  EXPECT_EQ(Said<wire::WeightsLoaded>(Kind::kWeightsLoaded).size(), 1u);
  const Published next = With(Publish(config_, 77, 4), group_);
  Tell(next.manifest);
  Send(next);
  AwaitTheEnd();
  EXPECT_EQ(Serve(next), 0);
  EXPECT_FALSE(lost_);
}

TEST_F(ActorFabricTest, ARepeatedManifestThatFindsTheSetArrivedStartsNothingAgain) {
  Begin();
  Published published = With(Publish(config_, 77, 3), group_);
  Tell(published.manifest);
  Send(published);
  sender_.join();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // over, but no tick has seen it
  actor_->out().clear();
  published.manifest.fabric.reset();
  Tell(published.manifest);
  EXPECT_FALSE(actor_->receiving());
  ASSERT_FALSE(actor_->out().empty());
  for (const wire::Message& m : actor_->out())
    EXPECT_EQ(m.kind, static_cast<std::uint16_t>(Kind::kWeightsLoaded));
}

TEST_F(ActorFabricTest, WhatIsMissingOrWrongIsPulledFromItsTensorOn) {
  for (const Fault fault : {Fault::kHalf, Fault::kWrongByte}) {
    Begin(fault);
    const std::string group(engine::kFabricId, fault == Fault::kHalf ? 'h' : 'w');
    const Published published = With(Publish(config_, 77, 3), group);
    Tell(published.manifest);
    Send(published);
    AwaitTheEnd();
    const std::int64_t pulled = Serve(published), all = std::int64_t(published.bytes.size());
    EXPECT_GE(pulled, all / 2);
    EXPECT_LT(pulled, all);
    sender_.join();
    EXPECT_EQ(lost_, fault == Fault::kHalf);
    lost_ = false;
  }
}

TEST_F(ActorFabricTest, ASenderThatNeverComesIsWaitedForNoLongerThanThePatience) {
  Begin(Fault::kNone, 0.2);
  const Published published = With(Publish(config_, 77, 3), group_);
  Tell(published.manifest);
  AwaitTheEnd();
  EXPECT_EQ(Serve(published), std::int64_t(published.bytes.size()));
}

TEST_F(ActorFabricTest, ANewerVersionIsPulledAtOnceAndTheOldBytesAreForgotten) {
  Begin();
  const Published old = With(Publish(config_, 77, 3), group_), next = Publish(config_, 77, 4);
  Tell(old.manifest);
  Tell(next.manifest);
  const auto pulls = Said<wire::WeightsPull>(Kind::kWeightsPull);
  ASSERT_FALSE(pulls.empty());
  EXPECT_EQ(pulls[0].version, 4u);
  Send(old);
  AwaitTheEnd();  // in the middle of the new one
  EXPECT_TRUE(Said<wire::WeightsPull>(Kind::kWeightsPull).empty());
  std::int64_t left = std::int64_t(next.bytes.size());
  for (const auto& pull : pulls) {
    left -= pull.length;
    Tell(next.Chunk(pull));
  }
  EXPECT_EQ(Serve(next), left);
}

TEST_F(ActorFabricTest, AManifestThatComesWhileAnotherSetIsUnderWayStopsThatAndPulls) {
  Begin();
  const Published old = With(Publish(config_, 77, 3), group_),
                  next = With(Publish(config_, 77, 4), std::string(engine::kFabricId, 'h'));
  Tell(old.manifest);
  Tell(next.manifest);
  EXPECT_EQ(Serve(next), std::int64_t(next.bytes.size()));
  AwaitTheEnd();
  EXPECT_EQ(fabric_->received, 0);
}

TEST_F(ActorFabricTest, AnotherSessionEndsWhatTheFormerOneSends) {
  Begin();
  const Published old = With(Publish(config_, 77, 3), group_), next = Publish(config_, 78, 3);
  Tell(old.manifest);
  wire::Welcome welcome;
  welcome.session = 78;
  welcome.config = "{}";
  welcome.model_config = config_.raw.dump();
  Tell(welcome);
  AwaitTheEnd();
  actor_->out().clear();
  Tell(next.manifest);
  EXPECT_EQ(Serve(next), std::int64_t(next.bytes.size()));
}

}  // namespace
}  // namespace temper::actor
