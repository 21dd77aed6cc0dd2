#include "bench/stand_in.h"

#include <algorithm>
#include <deque>
#include <filesystem>
#include <map>
#include <random>

#include "bench/lone_learner.h"
#include "configs/error.h"
#include "configs/sha256.h"
#include "engine/safetensors.h"
#include "learner/core/checkpoint_folder.h"
#include "learner/core/run_folder.h"

namespace temper::bench {
namespace {

namespace fs = std::filesystem;
using wire::Kind;

constexpr int kMostTurns = 100'000;
constexpr const char* kStart = "0000000000000000000000000000000000000000000000000000000000000000";

std::string Hash(const std::string& text) {
  return configs::Sha256Hex(std::as_bytes(std::span(text.data(), text.size())));
}

/// One more rollout in the text that a step hashes.
void Consume(std::uint64_t grp, std::uint32_t sample, const Json& ids, const Json& logp,
             double score, std::string* text) {
  *text += std::to_string(grp) + "." + std::to_string(sample) + ids.dump() + logp.dump() +
           Json(score).dump() + "\n";
}

/// A tensor of one row of bytes, as the learner writes its own.
void WriteText(const std::string& path, const std::string& text) {
  engine::SafetensorsWriter writer(
      path, {{"chain", engine::Dtype::kF32, {static_cast<std::int64_t>(text.size() / 4)}}});
  writer.Write(std::as_bytes(std::span(text.data(), text.size())));
  writer.Close();
}

std::string ReadText(const std::string& path) {
  const engine::SafetensorsFile file(path);
  std::string text(static_cast<std::size_t>(file.tensors().at("chain").shape[0]) * 4, ' ');
  file.Read("chain", std::as_writable_bytes(std::span(text.data(), text.size())));
  return text;
}

std::string Padded(std::uint64_t n) {
  std::string text = std::to_string(n);
  return std::string(16 - text.size(), '0') + text;
}

class StandIn {
 public:
  StandIn(const StandInOptions& options,
          const std::function<void(const wire::RolloutId&)>& acknowledged)
      : o_(options), acknowledged_(acknowledged), run_(options.folder + "/run") {
    config_.name = "stand-in";
    config_.output_dir = run_;
    config_.grpo.groups_per_step = o_.groups_per_step;
    config_.grpo.num_generations = o_.group_size;
    config_.grpo.max_lag = o_.max_lag;
    config_.grpo.max_steps = o_.steps;
    config_.grpo.max_completion_length = 4;
  }

  StandInReport Go() {
    Begin();
    LoneLearner::Options options;
    options.config = config_;
    options.database = run_ + "/trajectories.db";
    options.acknowledge_early = o_.acknowledge_early;
    options.send = [this](const std::string& peer, const wire::Message& message) {
      const bool ack = message.kind == static_cast<std::uint16_t>(Kind::kAck);
      if (!ack) return to_peers_.emplace_back(peer, message), void();
      for (const auto& id : wire::Ack::Decode(message).rollouts) acknowledged_(id);
    };
    std::uint64_t cursor = state_.next_group;
    if (o_.forgets_its_place && cursor > 0) --cursor;
    learner_.emplace(std::move(options), state_.step, cursor, state_.version, now_);
    SayHello("actor", wire::Role::kActor);
    SayHello("worker", wire::Role::kRewardWorker);
    Publish();
    while (state_.step < o_.steps) TrainOne();
    learner_.reset();
    return report_;
  }

 private:
  void Begin() {
    try {
      const learner::FoundCheckpoint found = learner::FindCheckpoint(run_);
      state_ = found.state;
      report_.weights = ReadText(found.dir + "/model.safetensors");
      report_.consumed = std::stoull(ReadText(found.dir + "/optimizer.safetensors"));
      learner::ContinueRun(config_, state_.config);
    } catch (const UserError&) {
      // As trainers do: no checkpoint, no run. Whether that may be is the caller's to judge.
      report_.fresh = true;
      fs::remove_all(run_);
      learner::BeginRun(config_);
      state_.config = configs::ToJson(config_);
      report_.weights = kStart;
      Save();
    }
  }

  void Save() {
    learner::WriteCheckpointFolder(run_, state_, o_.keep, [&](const std::string& dir) {
      WriteText(dir + "/model.safetensors", report_.weights);
      WriteText(dir + "/optimizer.safetensors", Padded(report_.consumed));
    });
  }

  void Publish() {
    weights_[state_.version] = report_.weights;
    auto set = std::make_shared<learner::WeightSet>();
    set->version = state_.version;
    const auto bytes = std::as_bytes(std::span(report_.weights.data(), report_.weights.size()));
    set->bytes.assign(bytes);
    set->tensors.push_back({"chain", "F32", {16}, 0, bytes.size(), configs::Sha256Hex(bytes)});
    learner_->Publish(std::move(set));
    learner::WriteVersionFile(run_, state_.version,
                              [&](const std::string& path) { WriteText(path, report_.weights); });
    learner::PruneVersions(run_, "2", state_.version);
  }

  void TrainOne() {
    const std::int64_t batch = state_.step + 1;
    learner_->Open(batch, now_);
    for (int turn = 0; !learner_->Complete(batch); ++turn) {
      if (turn > kMostTurns) throw std::logic_error("stand-in: a step that never ends");
      Turn();
    }
    learner_->Commit();
    const learner::Batch taken = learner_->Take(batch);
    std::vector<store::TrainedSample> trained;
    std::string text = report_.weights;
    for (const learner::ScoredGroup& group : taken.groups) {
      for (const store::RolloutRow& row : group.samples) {
        const std::int64_t lag = std::int64_t{state_.version} - row.version;
        if (lag < 0 || (lag > o_.max_lag && !o_.forgets_its_place))
          throw std::logic_error("stand-in: lag of " + row.Name());
        Consume(row.grp, row.sample, row.ids, row.logp, row.score.value(), &text);
        trained.push_back({row.grp, row.sample, row.attempt, 0.5, lag});
      }
    }
    report_.weights = Hash(text);
    report_.consumed += trained.size();
    store::StepRow row;
    row.step = batch;
    row.version = state_.version;
    learner_->store().PutStep(row, trained, {{"lag/max", o_.max_lag}});
    state_.step = batch;
    state_.next_group = taken.next_group;
    ++state_.version;
    Publish();
    if (batch % o_.save_steps != 0 && batch != o_.steps) return;
    Save();
    learner_->store().SetCheckpoint(batch, "step-" + std::to_string(batch));
  }

  /// A millisecond: one message to a peer, one to the learner.
  void Turn() {
    now_ += 1000;
    if (!to_peers_.empty()) {
      auto [peer, message] = std::move(to_peers_.front());
      to_peers_.pop_front();
      peer == "actor" ? Act(message) : Score(message);
    }
    if (!to_learner_.empty()) {
      auto [peer, message] = std::move(to_learner_.front());
      to_learner_.pop_front();
      learner_->Handle(peer, message, now_);
    }
    learner_->Tick(now_);
  }

  void SayHello(const std::string& name, wire::Role role) {
    wire::Hello hello;
    hello.role = role;
    hello.name = name;
    hello.instance = std::hash<std::string>()(name);
    hello.numerics = {"canon-1/fp32/cache-fp32"};
    hello.rows = 64;
    to_learner_.emplace_back(name, hello.Encode());
  }

  void Act(const wire::Message& message) {
    const Kind kind = static_cast<Kind>(message.kind);
    if (kind == Kind::kWeightsManifest) {
      const auto manifest = wire::WeightsManifest::Decode(message);
      to_learner_.emplace_back(
          "actor", wire::WeightsLoaded{manifest.session, manifest.version, {}}.Encode());
    }
    if (kind == Kind::kHeartbeat)
      to_learner_.emplace_back("actor", wire::Heartbeat{wire::Held()}.Encode());
    if (kind != Kind::kGrant) return;
    const wire::Grant grant = wire::Grant::Decode(message);
    for (const wire::GrantedGroup& group : grant.groups) {
      for (const std::uint32_t sample : group.samples) {
        const wire::Message rollout = Generate(grant, group, sample).Encode();
        const auto at = static_cast<std::ptrdiff_t>(disorder_() % (to_learner_.size() + 1));
        to_learner_.emplace(to_learner_.begin() + at, "actor", rollout);
      }
    }
  }

  wire::Rollout Generate(const wire::Grant& grant, const wire::GrantedGroup& group,
                         std::uint32_t sample) const {
    const std::string seed =
        Hash(weights_.at(grant.version) + std::to_string(group.grp) + "." + std::to_string(sample));
    std::mt19937_64 random(std::stoull(seed.substr(0, 16), nullptr, 16));
    wire::Rollout rollout;
    rollout.session = grant.session;
    rollout.id = {group.grp, sample, group.attempt};
    rollout.finish = "stop";
    rollout.version = grant.version;
    for (std::uint64_t n = 1 + random() % 4; n > 0; --n) {
      rollout.ids.push_back(static_cast<std::int32_t>(2 + random() % 80));
      rollout.logp.push_back(-static_cast<float>(random() % 1000) / 128);
    }
    return rollout;
  }

  void Score(const wire::Message& message) {
    if (message.kind != static_cast<std::uint16_t>(Kind::kScoreRequest)) return;
    const auto request = wire::ScoreRequest::Decode(message);
    wire::ScoreResult result{request.id, request.grp, {}};
    for (const auto& sample : request.samples)
      result.samples.push_back({sample.sample, sample.completion_ids[0] % 2, "ok", {}});
    to_learner_.emplace_back("worker", result.Encode());
  }

  const StandInOptions o_;
  const std::function<void(const wire::RolloutId&)> acknowledged_;
  const std::string run_;
  configs::Config config_;
  learner::TrainState state_;
  StandInReport report_;
  std::optional<LoneLearner> learner_;
  std::map<std::uint32_t, std::string> weights_;
  std::deque<std::pair<std::string, wire::Message>> to_peers_, to_learner_;
  std::mt19937_64 disorder_{1};
  Micros now_ = 0;
};

}  // namespace

StandInReport StandInRun(const StandInOptions& options,
                         const std::function<void(const wire::RolloutId&)>& acknowledged) {
  return StandIn(options, acknowledged).Go();
}

std::string ChainOf(const std::string& run) {
  std::string weights = kStart, text;
  std::int64_t step = 0;
  store::Reader(run + "/trajectories.db")
      .Query(
          "SELECT trained_step, grp, sample, ids, logp, score FROM rollout WHERE state = 'trained' "
          "ORDER BY trained_step, grp, sample",
          [&](const Json& row) {
            if (row["trained_step"] != step) {
              if (step > 0) weights = Hash(text);
              step = row["trained_step"];
              text = weights;
            }
            Consume(row["grp"], row["sample"], row["ids"], row["logp"], row["score"], &text);
          });
  return Hash(text);
}

}  // namespace temper::bench
