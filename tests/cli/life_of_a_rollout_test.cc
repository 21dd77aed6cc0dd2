// One rollout from prompt to trained row: learner's service, actor and a reward worker over a real
// socket.
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "actor/actor.h"
#include "configs/sha256.h"
#include "engine/engine.h"
#include "learner/core/service.h"
#include "tests/actor/fixture.h"
#include "tests/engine/memory_fabric.h"
#include "wire/client.h"

namespace temper {
namespace {

struct Prompts : learner::PromptSource {
  store::GroupRow Prompt(std::uint64_t grp) const override {
    store::GroupRow row;
    row.grp = grp;
    row.prompt_json = "\"p\"";
    row.row_json = "{}";
    row.prompt_ids = {2, 3, static_cast<std::int32_t>(4 + grp)};
    return row;
  }
  std::string Answer(std::uint64_t, bool* has) const override {
    *has = false;
    return "";
  }
};

/// Scores a completion by its length until told goodbye.
void ScoreLengths(const std::string& endpoint) {
  wire::Client client(endpoint);
  wire::Hello hello;
  hello.role = wire::Role::kRewardWorker;
  hello.name = "w1";
  hello.instance = 9;
  hello.rows = 8;
  client.Send(hello.Encode());
  wire::Incoming in;
  for (;;) {
    client.Flush();
    client.Wait(10'000, -1, client.queued());
    while (client.Receive(&in)) {
      if (in.message.kind == static_cast<std::uint16_t>(wire::Kind::kGoodbye)) return;
      if (in.message.kind == static_cast<std::uint16_t>(wire::Kind::kHeartbeat))
        client.Send(wire::Heartbeat().Encode());
      if (in.message.kind != static_cast<std::uint16_t>(wire::Kind::kScoreRequest)) continue;
      const auto request = wire::ScoreRequest::Decode(in.message);
      wire::ScoreResult result{request.id, request.grp, {}};
      for (const auto& s : request.samples) {
        result.samples.push_back(
            {s.sample, static_cast<double>(s.completion_ids.size()), "ok", {}});
      }
      client.Send(result.Encode());
    }
  }
}

class LifeOfARolloutTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = "/tmp/temper-life-XXXXXX";
    ASSERT_NE(mkdtemp(folder_.data()), nullptr);
    std::filesystem::create_directory(folder_ + "/model");
    std::ofstream(folder_ + "/model/config.json") << model_.raw.dump();
    config_.seed = 11;
    config_.output_dir = folder_;
    config_.grpo.groups_per_step = 3;
    config_.grpo.num_generations = 4;
    config_.grpo.max_completion_length = 12;
    config_.wire.peer_timeout_s = 30;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  learner::Service::Options Options() const {
    learner::Service::Options options;
    options.config = config_;
    options.run_dir = folder_;
    options.numerics = "canon-1/fp32/cache-fp32";
    options.model_dir = folder_ + "/model";
    options.valid_ids = 95;
    options.stop_ids = {1};
    options.prompts = std::make_shared<Prompts>();
    options.detokenize = [](std::span<const std::int32_t> ids) {
      return std::string(ids.size(), 'x');
    };
    return options;
  }
  std::shared_ptr<const learner::WeightSet> WeightsOf(std::uint32_t version) const {
    const actor::Published published = actor::Publish(model_, 0, version);
    auto set = std::make_shared<learner::WeightSet>();
    set->version = version;
    set->bytes.assign(published.bytes);
    for (const auto& t : published.manifest.tensors)
      set->tensors.push_back({t.name, t.dtype, t.shape, t.begin, t.end, t.sha256});
    return set;
  }
  /// What the engine gives for one sample of this group under these weights.
  engine::FinishedSample Replay(std::uint64_t grp, std::uint32_t sample,
                                std::uint32_t version) const {
    auto weights = std::make_shared<engine::Weights>(model_);
    const actor::Published published = actor::Publish(model_, 0, version);
    for (const auto& t : published.manifest.tensors) {
      std::vector<float> values((t.end - t.begin) / 4);
      std::memcpy(values.data(), published.bytes.data() + t.begin, t.end - t.begin);
      weights->Set(t.name, values);
    }
    engine::EngineOptions options;
    options.valid_ids = 95;
    engine::Engine engine(weights, options);
    engine.Add({grp, Prompts().Prompt(grp).prompt_ids, {sample}, 11, 12, {}, {1}});
    std::vector<engine::FinishedSample> finished;
    while (engine.Step(&finished)) {
    }
    return finished.at(0);
  }

  /// A step on the version of its number - 1; every rollout of it replays.
  void Train(learner::Service& service, std::int64_t step) const {
    const auto version = static_cast<std::uint32_t>(step - 1);
    service.Publish(WeightsOf(version));
    const auto start = std::chrono::steady_clock::now();
    const auto batch = service.NextBatch(step).groups;
    std::printf(
        "step %d: %.1f ms\n", static_cast<int>(step),
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() * 1e3);
    std::vector<store::TrainedSample> trained;
    for (const learner::ScoredGroup& group : batch) {
      for (const store::RolloutRow& row : group.samples) {
        EXPECT_EQ(row.version, version);
        EXPECT_EQ(row.score, static_cast<double>(row.ids.size()));
        const engine::FinishedSample again = Replay(row.grp, row.sample, row.version);
        EXPECT_EQ(again.ids, row.ids) << row.Name();
        EXPECT_EQ(again.logp, row.logp) << row.Name();
        trained.push_back({row.grp, row.sample, row.attempt, 0.0, 0});
      }
    }
    service.CommitStep({step, version, 0, 0, 0, ""}, trained, Json());
  }

  std::string folder_;
  engine::ModelConfig model_ = engine::TinyConfig();
  configs::Config config_;
};

TEST_F(LifeOfARolloutTest, EveryStoredRolloutReplaysBitForBitWithTheVersionItNames) {
  auto service = std::make_unique<learner::Service>(Options());
  std::thread worker([&, endpoint = service->endpoint()] { ScoreLengths(endpoint); });
  int codes[2] = {-1, -1};
  std::vector<std::thread> actors;
  for (int i = 0; i < 2; ++i) {
    actors.emplace_back([&, i, endpoint = service->endpoint()] {
      actor::Options options;
      options.name = "a" + std::to_string(i + 1);
      options.threads = 1;
      options.max_rows = 8;
      codes[i] = actor::RunActor(endpoint, options);
    });
  }
  for (std::int64_t step = 1; step <= 3; ++step) Train(*service, step);
  const auto start = std::chrono::steady_clock::now();
  service.reset();
  // Nobody waits for a timeout when a run ends.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(900));
  for (std::thread& thread : actors) thread.join();
  worker.join();
  EXPECT_EQ(codes[0], 0);
  EXPECT_EQ(codes[1], 0);
}

TEST_F(LifeOfARolloutTest, WeightsComeFromDeviceToDeviceAndByPullsWhereThatFails) {
  using engine::MemoryFabric;
  using Fault = MemoryFabric::Fault;
  const auto hall = std::make_shared<engine::MemoryHall>();
  const auto sender = std::make_shared<MemoryFabric>(hall, "l"),
             receiver = std::make_shared<MemoryFabric>(hall, "d", 2);
  config_.wire.bind = "tcp://127.0.0.1:*";
  learner::Service::Options with_fabric = Options();
  with_fabric.fabric = sender;
  auto service = std::make_unique<learner::Service>(std::move(with_fabric));
  std::thread worker([&, endpoint = service->endpoint()] { ScoreLengths(endpoint); });
  int code = -1;
  std::thread thread([&, endpoint = service->endpoint()] {
    actor::Options options;
    options.name = "a1";
    options.threads = 1;
    options.max_rows = 8;
    options.fabric = receiver;
    code = actor::RunActor(endpoint, options);
  });
  Train(*service, 1);  // published before it joined, or not
  const int before = receiver->received;
  Train(*service, 2);
  EXPECT_EQ(receiver->received, before + 1);
  Train(*service, 3);
  EXPECT_EQ(receiver->received, before + 2);
  EXPECT_EQ(sender->sent, before + 2);
  std::int64_t step = 4;
  for (const Fault fault : {Fault::kWrongByte, Fault::kHalf, Fault::kAbsent, Fault::kNone}) {
    receiver->fault = fault;
    Train(*service, step++);
  }
  EXPECT_EQ(receiver->received, before + 4);  // with the wrong byte, and the last
  const auto start = std::chrono::steady_clock::now();
  service.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(900));
  thread.join();
  worker.join();
  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace temper
