#pragma once
// A learner's service with peers on threads of their own, over real sockets.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "configs/sha256.h"
#include "learner/core/inbox.h"
#include "learner/core/service.h"
#include "reward/worker.h"
#include "tests/reward/zygote_entry.h"
#include "wire/client.h"

namespace temper::learner {

using wire::Kind;
using Clock = std::chrono::steady_clock;

inline double Seconds(Clock::time_point since) {
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
  FakePeer(const std::string& endpoint, wire::Hello hello, Reply reply,
           const std::string& keys = "")
      : thread_([=, this] { Run(endpoint, keys, hello, reply); }) {}
  ~FakePeer() {
    stop_ = true;
    thread_.join();
  }
  std::string goodbye() const { return goodbye_; }
  bool ended() const { return ended_; }

 private:
  void Run(const std::string& endpoint, const std::string& keys, wire::Hello hello,
           const Reply& reply) {
    wire::Client client(endpoint, keys);
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

inline wire::Hello HelloOf(const std::string& name, wire::Role role) {
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
inline FakePeer::Reply ActorReply(std::atomic<int>* acked, int tokens = 4, int limit = 1 << 30) {
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

inline FakePeer::Reply ScorerReply() {
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

}  // namespace temper::learner
