#include "learner/core/service.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>

#include "tests/learner/core/service_fixture.h"

namespace temper::learner {
namespace {

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
    for (int i = 0; i < 6000 && acked < 48; ++i) usleep(10'000);
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
      usleep(20'000 * (1 + static_cast<unsigned>(i) / 2));  // a minute, should the machine be busy
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
  for (int i = 0; i < 6000 && !(actor.ended() && worker.ended()); ++i) usleep(10'000);
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
  Clock::time_point start;
  std::thread killer([&] {
    while (acked < 6) usleep(1000);
    start = Clock::now();
    dying.reset();  // its connection ends without a goodbye
    dying = std::make_unique<FakePeer>(service.endpoint(), HelloOf("a2", wire::Role::kActor),
                                       ActorReply(&acked));
  });
  const auto batch = service.NextBatch(1).groups;
  killer.join();
  EXPECT_LT(Seconds(start), 8);  // silence alone would be noticed after 10 s
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
  EXPECT_LT(best, 10.0);  // the machine may be busy; the figure is for reading
}

}  // namespace
}  // namespace temper::learner
