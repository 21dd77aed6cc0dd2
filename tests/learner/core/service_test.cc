#include "learner/core/service.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "configs/sha256.h"
#include "learner/core/inbox.h"
#include "reward/worker.h"
#include "tests/reward/zygote_entry.h"
#include "wire/socket.h"

namespace temper::learner {
namespace {

using wire::Kind;
using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

struct Numbers : PromptSource {
  store::GroupRow Prompt(std::uint64_t grp) const override {
    store::GroupRow row;
    row.grp = grp;
    row.prompt_json = "\"" + std::to_string(grp) + "\"";
    row.row_json = "{\"prompt\":\"" + std::to_string(grp) + "\"}";
    row.prompt_ids = {static_cast<std::int32_t>(grp % 90) + 2};
    return row;
  }
  std::string Answer(std::uint64_t grp, bool* has) const override {
    *has = true;
    return std::to_string(grp);
  }
};

/// A peer on its own thread: answers what `reply` says until it is told goodbye or stopped.
class FakePeer {
 public:
  using Reply = std::function<void(wire::Client&, const wire::Message&)>;
  FakePeer(const std::string& endpoint, wire::Hello hello, Reply reply)
      : thread_([=, this] { Run(endpoint, hello, reply); }) {}
  ~FakePeer() {
    stop_ = true;
    thread_.join();
  }
  std::string goodbye() const { return goodbye_; }
  bool ended() const { return ended_; }

 private:
  void Run(const std::string& endpoint, wire::Hello hello, const Reply& reply) {
    wire::Client client(endpoint);
    client.Send(hello.Encode());
    auto beat = Clock::now();
    wire::Incoming in;
    while (!stop_) {
      client.Flush();
      client.Wait(1000, -1, client.queued());
      while (client.Receive(&in)) {
        ASSERT_EQ(in.error, "");
        if (in.message.kind == static_cast<std::uint16_t>(Kind::kRefuse) &&
            wire::Refuse::Decode(in.message).code == wire::kHelloFirst) {
          client.Send(hello.Encode());
        }
        if (in.message.kind == static_cast<std::uint16_t>(Kind::kGoodbye)) {
          goodbye_ = wire::Goodbye::Decode(in.message).reason;
          ended_ = true;
          return;
        }
        reply(client, in.message);
      }
      if (Seconds(beat) > 1) {
        client.Send(wire::Heartbeat().Encode());
        beat = Clock::now();
      }
    }
  }
  std::atomic<bool> stop_{false}, ended_{false};
  std::string goodbye_;
  std::thread thread_;
};

wire::Hello HelloOf(const std::string& name, wire::Role role) {
  wire::Hello hello;
  hello.role = role;
  hello.name = name;
  hello.instance = std::hash<std::string>()(name);
  hello.numerics = {"canon-1/fp32/cache-fp32"};
  hello.rows = role == wire::Role::kActor ? 512 : 8;
  return hello;
}

/// Pulls weights, then answers every granted sample at once; ids depend on seed, group and sample
/// only.
FakePeer::Reply ActorReply(std::atomic<int>* acked, int tokens = 4, int limit = 1 << 30) {
  struct State {
    std::uint64_t session = 0, bytes = 0, got = 0;
    std::uint32_t version = 0;
    int sent = 0;
  };
  auto state = std::make_shared<State>();
  return [=](wire::Client& client, const wire::Message& m) {
    switch (static_cast<Kind>(m.kind)) {
      case Kind::kWelcome:
        state->session = wire::Welcome::Decode(m).session;
        return;
      case Kind::kWeightsManifest: {
        const auto manifest = wire::WeightsManifest::Decode(m);
        state->bytes = manifest.bytes;
        state->version = manifest.version;
        state->got = 0;
        for (std::uint64_t at = 0; at < manifest.bytes; at += 1 << 20) {
          client.Send(wire::WeightsPull{
              manifest.version, at,
              static_cast<std::uint32_t>(std::min<std::uint64_t>(1 << 20, manifest.bytes - at))}
                          .Encode());
        }
        return;
      }
      case Kind::kWeightsChunk:
        state->got += wire::WeightsChunk::Decode(m).data.view.size();
        if (state->got == state->bytes)
          client.Send(wire::WeightsLoaded{state->session, state->version}.Encode());
        return;
      case Kind::kGrant: {
        const auto grant = wire::Grant::Decode(m);
        for (const auto& g : grant.groups) {
          for (const std::uint32_t s : g.samples) {
            if (state->sent++ >= limit) return;
            wire::Rollout r;
            r.session = state->session;
            r.id = {g.grp, s, g.attempt};
            r.finish = "stop";
            r.version = grant.version;
            for (int t = 0; t < tokens; ++t) {
              r.ids.push_back(
                  static_cast<std::int32_t>((g.grp * 7 + s * 3 + static_cast<unsigned>(t)) % 100));
              r.logp.push_back(-0.25f * static_cast<float>(t + 1));
            }
            client.Send(r.Encode());
          }
        }
        return;
      }
      case Kind::kAck:
        *acked += static_cast<int>(wire::Ack::Decode(m).rollouts.size());
        return;
      default:
        return;
    }
  };
}

FakePeer::Reply ScorerReply() {
  return [](wire::Client& client, const wire::Message& m) {
    if (m.kind != static_cast<std::uint16_t>(Kind::kScoreRequest)) return;
    const auto request = wire::ScoreRequest::Decode(m);
    EXPECT_EQ(request.answer, std::to_string(request.grp));
    wire::ScoreResult result;
    result.id = request.id;
    result.grp = request.grp;
    for (const auto& s : request.samples) {
      const double score = static_cast<double>(s.completion_ids[0] % 2);
      result.samples.push_back({s.sample, score, "ok", {{"r", score, 1.0, "ok", "", 0, "", 5}}});
    }
    client.Send(result.Encode());
  };
}

class ServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = "/tmp/temper-service-XXXXXX";
    ASSERT_NE(mkdtemp(folder_.data()), nullptr);
    std::filesystem::create_directory(folder_ + "/model");
    std::ofstream(folder_ + "/model/config.json") << "{}";
    config_.name = "test";
    config_.seed = 7;
    config_.output_dir = folder_;
    config_.model = folder_ + "/model";
    config_.grpo.groups_per_step = 4;
    config_.grpo.num_generations = 4;
    config_.grpo.max_steps = 100;
    config_.grpo.max_completion_length = 256;
    config_.wire.peer_timeout_s = 20;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Service::Options Options() const {
    Service::Options options;
    options.config = config_;
    options.run_dir = folder_;
    options.numerics = "canon-1/fp32/cache-fp32";
    options.model_dir = folder_ + "/model";
    options.valid_ids = 100;
    options.stop_ids = {1};
    options.prompts = std::make_shared<Numbers>();
    options.detokenize = [](std::span<const std::int32_t> ids) {
      return std::string(ids.size(), 'x');
    };
    return options;
  }
  static std::shared_ptr<const WeightSet> Weights(std::uint32_t version,
                                                  std::size_t bytes = 1 << 10) {
    auto set = std::make_shared<WeightSet>();
    set->version = version;
    set->bytes.resize(bytes);
    set->tensors = {
        {"w", "F32", {static_cast<std::int64_t>(bytes / 4)}, 0, bytes, std::string(64, '0')}};
    return set;
  }
  std::vector<store::TrainedSample> TrainedOf(const std::vector<ScoredGroup>& batch) const {
    std::vector<store::TrainedSample> trained;
    for (const ScoredGroup& g : batch) {
      for (const store::RolloutRow& r : g.samples)
        trained.push_back({r.grp, r.sample, r.attempt, 0.5, 0});
    }
    return trained;
  }
  std::int64_t Count(const std::string& where) const {
    std::int64_t n = 0;
    store::Reader reader(folder_ + "/trajectories.db");
    reader.Query("SELECT count(*) AS n FROM rollout WHERE " + where,
                 [&](const Json& row) { n = row["n"]; });
    return n;
  }

  std::string folder_;
  configs::Config config_;
};

TEST_F(ServiceTest, RunsStepsWithAnActorAndARewardWorker) {
  std::atomic<int> acked{0};
  {
    Service service(Options());
    std::string endpoint;
    std::getline(std::ifstream(folder_ + "/endpoint"), endpoint);
    EXPECT_EQ(endpoint, service.endpoint());
    FakePeer actor(endpoint, HelloOf("a1", wire::Role::kActor), ActorReply(&acked));
    FakePeer worker(endpoint, HelloOf("w1", wire::Role::kRewardWorker), ScorerReply());
    for (std::int64_t step = 1; step <= 3; ++step) {
      service.Publish(Weights(static_cast<std::uint32_t>(step - 1)));
      const auto batch = service.NextBatch(step).groups;
      ASSERT_EQ(batch.size(), 4u);
      EXPECT_EQ(batch[0].grp, static_cast<std::uint64_t>(step - 1) * 4);
      for (const ScoredGroup& g : batch) {
        ASSERT_EQ(g.samples.size(), 4u);
        EXPECT_EQ(g.prompt_ids.size(), 1u);
        for (std::uint32_t s = 0; s < 4; ++s) {
          EXPECT_EQ(g.samples[s].sample, s);
          EXPECT_EQ(g.samples[s].version, step - 1);
          EXPECT_EQ(g.samples[s].score, static_cast<double>(g.samples[s].ids[0] % 2));
        }
      }
      const ServiceStats stats = service.TakeStats();
      EXPECT_EQ(stats.completion_tokens, 64u);
      EXPECT_GT(stats.wait_seconds, 0);
      service.CommitStep({step, static_cast<std::uint32_t>(step - 1), 0.1, 0.5, 1.0, ""},
                         TrainedOf(batch), Json{{"loss", 0.1}});
    }
    service.SetCheckpoint(3, "step-000003");
    for (int i = 0; i < 500 && acked < 48; ++i) usleep(10'000);
    EXPECT_EQ(acked, 48);
  }
  EXPECT_EQ(Count("state = 'trained'"), 48);
  EXPECT_EQ(
      Count("actor = 'a1' AND finish_reason = 'stop' AND score IS NOT NULL AND received_ms > 0"),
      48);
}

/// A worker of the real kind on a thread of its own, until the service says goodbye.
class RealWorker {
 public:
  explicit RealWorker(const std::string& endpoint) {
    options_.endpoint = endpoint;
    options_.name = "w1";
    thread_ = std::thread([this] { reward::RunWorker(options_); });
  }
  ~RealWorker() { thread_.join(); }

 private:
  reward::WorkerOptions options_;
  std::thread thread_;
};

TEST_F(ServiceTest, AChangedScriptScoresNewGroupsAndABrokenOneNobody) {
  const std::string path = folder_ + "/r.lua";
  const auto script = [](int score) {
    return "function score(s) return " + std::to_string(score) +
           " end\ncases = {{completion = 'x', expect = {score = " + std::to_string(score) + "}}}";
  };
  std::ofstream(path) << script(1);
  config_.data.train = "rows.jsonl";
  config_.rewards.emplace_back().script = path;
  config_.rewards[0].name = "r";
  std::atomic<int> acked{0};
  std::int64_t step = 0;
  {
    Service::Options options = Options();
    options.script_period_s = 0.01;
    auto service = std::make_unique<Service>(std::move(options));
    RealWorker worker(service->endpoint());
    FakePeer actor(service->endpoint(), HelloOf("a1", wire::Role::kActor), ActorReply(&acked));
    const auto next = [&] {
      ++step;
      service->Publish(Weights(static_cast<std::uint32_t>(step - 1)));
      const auto batch = service->NextBatch(step).groups;
      service->CommitStep({step, static_cast<std::uint32_t>(step - 1), 0.1, 0.5, 1.0, ""},
                          TrainedOf(batch), Json::object());
      for (const ScoredGroup& group : batch) {
        for (std::size_t s = 1; s < group.samples.size(); ++s) {  // a group has one scorer
          EXPECT_EQ(group.parts[s][0].script_sha256, group.parts[0][0].script_sha256);
        }
      }
      return *batch.back().samples[0].score;
    };
    EXPECT_EQ(next(), 1.0);
    std::ofstream(path) << script(2);
    double score = 1;
    for (int i = 0; i < 80 && score != 2; ++i) {
      usleep(20'000);
      score = next();
    }
    EXPECT_EQ(score, 2.0);
    std::ofstream(path) << "function score(s) retrun 3 end";
    usleep(300'000);
    EXPECT_EQ(next(), 2.0);
    service.reset();
  }
  for (const int used : {1, 2}) {
    store::Reader(folder_ + "/trajectories.db")
        .Query("SELECT count(*) AS n FROM reward_part WHERE value = " + std::to_string(used) +
                   " AND script_sha256 = '" + configs::Sha256Hex(script(used)) + "'",
               [](const Json& row) { EXPECT_GE(row["n"], 16); });
  }
  EXPECT_EQ(Count("state = 'trained'"), step * 16);
}

TEST_F(ServiceTest, SaysGoodbyeWhenTheRunIsOver) {
  std::atomic<int> acked{0};
  auto service = std::make_unique<Service>(Options());
  FakePeer actor(service->endpoint(), HelloOf("a1", wire::Role::kActor), ActorReply(&acked));
  FakePeer worker(service->endpoint(), HelloOf("w1", wire::Role::kRewardWorker), ScorerReply());
  service->Publish(Weights(0));
  service->NextBatch(1);
  service.reset();
  for (int i = 0; i < 300 && !(actor.ended() && worker.ended()); ++i) usleep(10'000);
  EXPECT_EQ(actor.goodbye(), "the run is over");
  EXPECT_EQ(worker.goodbye(), "the run is over");
}

TEST_F(ServiceTest, AnActorThatDiesInTheMiddleIsReplaced) {
  std::atomic<int> acked{0};
  Service service(Options());
  FakePeer worker(service.endpoint(), HelloOf("w1", wire::Role::kRewardWorker), ScorerReply());
  service.Publish(Weights(0));
  auto dying = std::make_unique<FakePeer>(service.endpoint(), HelloOf("a1", wire::Role::kActor),
                                          ActorReply(&acked, 4, 6));
  std::thread killer([&] {
    while (acked < 6) usleep(1000);
    dying.reset();  // its connection ends without a goodbye
    dying = std::make_unique<FakePeer>(service.endpoint(), HelloOf("a2", wire::Role::kActor),
                                       ActorReply(&acked));
  });
  const auto start = Clock::now();
  const auto batch = service.NextBatch(1).groups;
  killer.join();
  EXPECT_LT(Seconds(start), 8);
  EXPECT_EQ(batch.size(), 4u);
  int first = 0;
  for (const ScoredGroup& g : batch) {
    for (const auto& s : g.samples) first += s.attempt == 0 && s.actor == "a1";
  }
  EXPECT_EQ(first, 6);
}

TEST_F(ServiceTest, ResumesFromWhatTheDatabaseHolds) {
  std::vector<ScoredGroup> before;
  std::atomic<int> acked{0};
  {
    Service service(Options());
    FakePeer actor(service.endpoint(), HelloOf("a1", wire::Role::kActor), ActorReply(&acked));
    FakePeer worker(service.endpoint(), HelloOf("w1", wire::Role::kRewardWorker), ScorerReply());
    for (std::int64_t step = 1; step <= 2; ++step) {
      service.Publish(Weights(static_cast<std::uint32_t>(step - 1)));
      before = service.NextBatch(step).groups;
      service.CommitStep({step, static_cast<std::uint32_t>(step - 1), 0, 0, 0, ""},
                         TrainedOf(before), Json());
    }
  }
  Service::Options options = Options();
  options.resume_step = 1;
  Service service(options);
  service.Publish(Weights(1));
  const auto again = service.NextBatch(2).groups;  // nobody is connected: everything is there
  ASSERT_EQ(again.size(), before.size());
  for (std::size_t g = 0; g < again.size(); ++g) {
    for (std::size_t s = 0; s < 4; ++s) {
      EXPECT_EQ(again[g].samples[s].ids, before[g].samples[s].ids);
      EXPECT_EQ(again[g].samples[s].logp, before[g].samples[s].logp);
      EXPECT_EQ(again[g].samples[s].score, before[g].samples[s].score);
      EXPECT_EQ(again[g].samples[s].text, before[g].samples[s].text);
      ASSERT_EQ(again[g].parts[s].size(), 1u);
      EXPECT_EQ(again[g].parts[s][0].value, before[g].parts[s][0].value);
    }
  }
  service.CommitStep({2, 1, 0, 0, 0, ""}, TrainedOf(again), Json());
  FakePeer actor(service.endpoint(), HelloOf("a1", wire::Role::kActor), ActorReply(&acked));
  FakePeer worker(service.endpoint(), HelloOf("w1", wire::Role::kRewardWorker), ScorerReply());
  service.Publish(Weights(2));
  EXPECT_EQ(service.NextBatch(3).groups.size(), 4u);
  EXPECT_EQ(Count("state = 'dropped'"), 0);
}

TEST_F(ServiceTest, AResumeKeepsWhatItsRewardDropped) {
  std::atomic<int> acked{0};
  std::vector<ScoredGroup> before;
  {
    Service service(Options());
    FakePeer actor(service.endpoint(), HelloOf("a1", wire::Role::kActor), ActorReply(&acked));
    FakePeer worker(service.endpoint(), HelloOf("w1", wire::Role::kRewardWorker),
                    [](wire::Client& client, const wire::Message& m) {
                      if (m.kind != static_cast<std::uint16_t>(Kind::kScoreRequest)) return;
                      const auto request = wire::ScoreRequest::Decode(m);
                      wire::ScoreResult result{request.id, request.grp, {}};
                      for (const auto& s : request.samples) {
                        const bool bad = s.sample == 2;
                        result.samples.push_back({s.sample, 1.0, bad ? "timeout" : "ok", {}});
                      }
                      client.Send(result.Encode());
                    });
    service.Publish(Weights(0));
    before = service.NextBatch(1).groups;
  }
  Service::Options options = Options();
  options.resume_step = 0;
  Service service(options);
  service.Publish(Weights(0));
  const auto again = service.NextBatch(1).groups;
  for (std::size_t g = 0; g < 4; ++g) {
    EXPECT_EQ(before[g].samples[2].state, "dropped");
    EXPECT_EQ(again[g].samples[2].state, "dropped");
    EXPECT_EQ(again[g].samples[2].reason, "timeout");
    EXPECT_EQ(again[g].samples[2].ids, before[g].samples[2].ids);
    EXPECT_EQ(again[g].samples[1].state, "scored");
  }
}

TEST_F(ServiceTest, ARunThatIsResumedWithOtherDataIsRefused) {
  std::atomic<int> acked{0};
  {
    Service service(Options());
    FakePeer actor(service.endpoint(), HelloOf("a1", wire::Role::kActor), ActorReply(&acked));
    FakePeer worker(service.endpoint(), HelloOf("w1", wire::Role::kRewardWorker), ScorerReply());
    service.Publish(Weights(0));
    service.NextBatch(1);
  }
  struct Others : Numbers {
    store::GroupRow Prompt(std::uint64_t grp) const override {
      store::GroupRow row = Numbers::Prompt(grp);
      row.prompt_ids = {99, 99};
      return row;
    }
  };
  Service::Options options = Options();
  options.resume_step = 0;
  options.prompts = std::make_shared<Others>();
  Service service(options);
  service.Publish(Weights(0));
  EXPECT_THROW(service.NextBatch(1), UserError);
}

TEST_F(ServiceTest, ErrorsOfTheServingThreadReachTheTrainingThread) {
  config_.wire.peer_timeout_s = 1;
  Service service(Options());
  service.Publish(Weights(0));
  try {
    service.NextBatch(1);
    FAIL() << "nobody was there";
  } catch (const MachineError& error) {
    EXPECT_NE(std::string(error.what()).find("for an actor"), std::string::npos) << error.what();
  }
  EXPECT_THROW(service.TakeStats(), MachineError);
}

TEST_F(ServiceTest, AnEndpointInUseLeavesTheOtherRunAlone) {
  Service first(Options());
  EXPECT_THROW(Service second(Options()), MachineError);
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/trajectories.db"));
}

TEST_F(ServiceTest, AStepOf512RolloutsCostsLittle) {
  config_.grpo.groups_per_step = 64;
  config_.grpo.num_generations = 8;
  std::atomic<int> acked{0};
  Service service(Options());
  FakePeer actor(service.endpoint(), HelloOf("a1", wire::Role::kActor), ActorReply(&acked, 32));
  FakePeer worker(service.endpoint(), HelloOf("w1", wire::Role::kRewardWorker), ScorerReply());
  service.Publish(Weights(0));
  service.NextBatch(1);
  double best = 1e9, worst = 0;
  for (std::int64_t step = 2; step <= 6; ++step) {
    const auto start = Clock::now();
    service.Publish(Weights(static_cast<std::uint32_t>(step - 1), 8 << 20));
    service.NextBatch(step);
    best = std::min(best, Seconds(start));
    worst = std::max(worst, Seconds(start));
  }
  std::printf(
      "8 MiB of weights, 512 rollouts of 32 tokens stored and scored: best %.1f ms, worst %.1f "
      "ms\n",
      best * 1e3, worst * 1e3);
  EXPECT_LT(best, 1.0);  // the machine may be busy; the figure is for reading
}

}  // namespace
}  // namespace temper::learner
