#include "bench/lossy_run.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <set>

#include "actor/actor.h"
#include "bench/lone_learner.h"
#include "bench/lossy_network.h"
#include "configs/error.h"
#include "configs/sha256.h"
#include "tests/actor/fixture.h"

namespace temper::bench {
namespace {

using wire::Kind;

constexpr Micros kTick = 100'000;
constexpr Micros kMinute = 60'000'000;
constexpr Micros kStuck = 10 * kMinute;  // without a finished step

/// An actor's or worker's place: processes come and go there, each with connections of its own.
struct Place {
  std::string name;
  int connections = 0;
  std::string connection;               // the current one
  std::string before;                   // of a learner that died: what it sent still arrives
  std::unique_ptr<actor::Actor> actor;  // of an actor's place
  std::set<wire::RolloutId> sent;       // for the control that never repeats
  bool welcome = false;
  Micros next_beat = 0;
  Micros starts = 0;  // dead until then
};

class Run {
 public:
  Run(const LossyOptions& options, const std::string& folder)
      : o_(options),
        folder_(folder),
        network_(options.drop, options.repeat, options.seed),
        config_(engine::TinyConfig(true, 0)) {
    run_.name = "lossy";
    run_.seed = 7;
    run_.grpo.groups_per_step = o_.groups_per_step;
    run_.grpo.num_generations = o_.group_size;
    run_.grpo.max_lag = o_.max_lag;
    run_.grpo.max_completion_length = 2;
    run_.wire.peer_timeout_s = 600;
    steps_ = static_cast<std::int64_t>(o_.rollouts) / (o_.groups_per_step * o_.group_size);
    run_.grpo.max_steps = static_cast<int>(steps_);
    for (int i = 1; i <= o_.actors + o_.workers; ++i) {
      Place& place = places_.emplace_back();
      place.name = i <= o_.actors ? "a" + std::to_string(i) : "w" + std::to_string(i - o_.actors);
    }
  }

  LossyReport Go() {
    const auto began = std::chrono::steady_clock::now();
    try {
      Steps();
    } catch (const std::exception& error) {
      report_.stuck = error.what();
    }
    EndLearner();
    Count();
    report_.messages = network_.messages;
    report_.drops = network_.drops;
    report_.repeats = network_.repeats;
    report_.virtual_seconds = static_cast<double>(now_) * 1e-6;
    report_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    return report_;
  }

 private:
  void Steps() {
    StartLearner();
    Micros progress = now_;
    std::int64_t seen = 0;
    while (step_ < steps_) {
      Turn();
      if (step_ > seen) {
        seen = step_;
        progress = now_;
      }
      if (now_ - progress > kStuck) {
        throw MachineError("step " + std::to_string(step_ + 1) + " was not finished within " +
                           std::to_string(kStuck / kMinute) + " virtual minutes");
      }
    }
  }

  bool IsActor(const Place& place) const { return place.name[0] == 'a'; }
  bool Chance(double per_minute) {
    return network_.Roll() < per_minute * static_cast<double>(kTick) / kMinute;
  }

  void Turn() {
    now_ += kTick;
    if (!learner_) StartLearner();
    const bool doomed =
        step_ * (o_.learner_kills + 1) >= steps_ * (kills_ + 1) && kills_ < o_.learner_kills;
    for (Place& place : places_) Live(place);
    for (LossyNetwork::Packet& packet : network_.Arrived(now_)) {
      if (!learner_ && packet.to_learner) continue;
      Arrive(packet);
      if (doomed && learner_ && packet.to_learner && network_.Roll() < 0.1) {
        ++kills_;
        ++report_.learner_kills;
        EndLearner();
      }
    }
    if (!learner_) return;
    learner_->Tick(now_);
    Train();
  }

  void StartLearner() {
    LoneLearner::Options options;
    options.config = run_;
    options.model_config = config_.raw.dump();
    options.database = folder_ + "/trajectories.db";
    options.session = ++session_;
    options.acknowledge_early = o_.acknowledge_early;
    options.send = [this](const std::string& peer, const wire::Message& message) {
      network_.Send(peer, false, message, now_);
    };
    const std::uint64_t cursor =
        static_cast<std::uint64_t>(step_) * static_cast<std::uint64_t>(o_.groups_per_step);
    learner_ = std::make_unique<LoneLearner>(std::move(options), step_, cursor, Version(), now_);
    PublishNow();
    OpenNext();
  }

  /// kill -9: what is not committed is gone, and so is what is on the way to it.
  void EndLearner() {
    learner_.reset();
    for (Place& place : places_) place.before = std::exchange(place.connection, "");
  }

  std::uint32_t Version() const { return static_cast<std::uint32_t>(step_); }

  void PublishNow() {
    const actor::Published published = actor::Publish(config_, session_, Version());
    auto set = std::make_shared<learner::WeightSet>();
    set->version = Version();
    for (const auto& t : published.manifest.tensors) {
      set->tensors.push_back({t.name, t.dtype, t.shape, t.begin, t.end, t.sha256});
    }
    set->bytes.assign(published.bytes);
    learner_->Publish(std::move(set));
  }

  void OpenNext() {
    if (step_ < steps_) learner_->Open(step_ + 1, now_);
  }

  void Train() {
    if (!learner_->Complete(step_ + 1)) return;
    learner_->Commit();
    const learner::Batch batch = learner_->Take(step_ + 1);
    std::vector<store::TrainedSample> trained;
    for (const auto& group : batch.groups) {
      for (const auto& row : group.samples) {
        const std::int64_t lag = static_cast<std::int64_t>(Version()) - row.version;
        trained.push_back({row.grp, row.sample, row.attempt, 0.5, lag});
      }
    }
    store::StepRow row;
    row.step = step_ + 1;
    row.version = Version();
    learner_->store().PutStep(row, trained, Json::object());
    ++step_;
    PublishNow();
    OpenNext();
  }

  // Everybody else.

  Place* At(const LossyNetwork::Packet& packet) {
    for (Place& place : places_) {
      const std::string& name = packet.connection;
      if (place.connection == name || (place.before == name && !packet.to_learner)) return &place;
    }
    return nullptr;
  }

  void Arrive(LossyNetwork::Packet& packet) {
    Place* place = At(packet);
    if (place == nullptr) return;  // cut in the meantime
    const wire::Message message = wire::Decode(packet.frames);
    const Kind kind = static_cast<Kind>(message.kind);
    if (packet.to_learner) {
      report_.received += kind == Kind::kRollout;
      return learner_->Handle(packet.connection, message, now_);
    }
    if (!IsActor(*place)) return Work(*place, message);
    if (!place->actor) return;
    if (kind == Kind::kAck) {
      for (const auto& id : wire::Ack::Decode(message).rollouts) acknowledged_.insert(id);
    }
    place->actor->Handle(message, now_);
    Speak(*place);
  }

  void Live(Place& place) {
    if (place.connection.empty() || Chance(o_.cuts_per_minute)) {
      report_.cuts += !place.connection.empty();
      const std::string cut =
          std::exchange(place.connection, place.name + "#" + std::to_string(++place.connections));
      if (!cut.empty() && network_.Roll() < 0.5) learner_->PeerGone(cut);  // else: silence
    }
    if (!IsActor(place)) return Beat(place);
    if (place.actor && Chance(o_.actor_kills_per_minute)) {
      ++report_.actor_kills;
      place.actor.reset();
      place.sent.clear();
      place.starts = now_ + 1'000'000;
      place.connection = place.name + "#" + std::to_string(++place.connections);
    }
    if (!place.actor) {
      if (now_ < place.starts) return;
      actor::Options options;
      options.name = place.name;
      options.threads = 1;
      options.max_rows = 256;
      place.actor = std::make_unique<actor::Actor>(options, "lossy", now_);
    }
    place.actor->Tick(now_);
    while (place.actor->Work(now_)) {
    }
    Speak(place);
  }

  void Speak(Place& place) {
    for (const wire::Message& message : place.actor->out()) {
      const bool rollout = message.kind == static_cast<std::uint16_t>(Kind::kRollout);
      if (o_.never_repeat && rollout &&
          !place.sent.insert(wire::Rollout::Decode(message).id).second) {
        continue;
      }
      network_.Send(place.connection, true, message, now_);
    }
    place.actor->out().clear();
  }

  void Hello(Place& place) {
    wire::Hello hello;
    hello.role = wire::Role::kRewardWorker;
    hello.name = place.name;
    hello.instance = std::hash<std::string>()(place.name);
    hello.rows = 4;
    network_.Send(place.connection, true, hello.Encode(), now_);
  }

  void Beat(Place& place) {
    if (now_ < place.next_beat) return;
    place.next_beat = now_ + 1'000'000;
    if (!place.welcome) return Hello(place);
    network_.Send(place.connection, true, wire::Heartbeat{wire::Held()}.Encode(), now_);
  }

  void Work(Place& place, const wire::Message& message) {
    const Kind kind = static_cast<Kind>(message.kind);
    if (kind == Kind::kWelcome) place.welcome = true;
    if (kind == Kind::kRefuse && wire::Refuse::Decode(message).code == wire::kHelloFirst) {
      place.welcome = false;
    }
    if (kind != Kind::kScoreRequest) return;
    const auto request = wire::ScoreRequest::Decode(message);
    wire::ScoreResult result{request.id, request.grp, {}};
    for (const auto& sample : request.samples) {
      const double score = sample.completion_ids.empty() ? 0 : sample.completion_ids[0] % 2;
      result.samples.push_back({sample.sample, score, "ok", {}});
    }
    network_.Send(place.connection, true, result.Encode(), now_);
  }

  // What is left.

  void Count() {
    std::set<std::pair<std::uint64_t, std::uint64_t>> trained;
    std::set<wire::RolloutId> stored;
    std::string text;
    store::Reader reader(folder_ + "/trajectories.db");
    reader.Query(
        "SELECT grp, sample, attempt, state, version, ids, logp FROM rollout ORDER BY grp, sample, "
        "attempt",
        [&](const Json& row) {
          const auto grp = row["grp"].get<std::uint64_t>();
          const auto sample = row["sample"].get<std::uint64_t>();
          stored.insert({grp, static_cast<std::uint32_t>(sample), row["attempt"].get<int>()});
          if (row["state"] == "dropped") {
            ++report_.dropped_rows;
            return;
          }
          if (row["state"] != "trained") return;
          ++report_.rows;
          report_.extra += !trained.insert({grp, sample}).second;
          text += row["grp"].dump() + "." + row["sample"].dump() + "@" + row["version"].dump() +
                  row["ids"].dump() + row["logp"].dump() + "\n";
        });
    report_.missing =
        static_cast<std::uint64_t>(steps_ * o_.groups_per_step * o_.group_size) - trained.size();
    report_.acknowledged = acknowledged_.size();
    for (const wire::RolloutId& id : acknowledged_) report_.lost += !stored.contains(id);
    report_.hash = configs::Sha256Hex(std::as_bytes(std::span(text.data(), text.size())));
  }

  const LossyOptions o_;
  const std::string folder_;
  LossyNetwork network_;
  const engine::ModelConfig config_;
  configs::Config run_;
  std::vector<Place> places_;
  std::unique_ptr<LoneLearner> learner_;
  std::set<wire::RolloutId> acknowledged_;
  std::uint64_t session_ = 0;
  std::int64_t step_ = 0, steps_ = 0, kills_ = 0;  // step_: trained
  Micros now_ = 0;
  LossyReport report_;
};

}  // namespace

LossyReport LossyRun(const LossyOptions& options, const std::string& folder) {
  return Run(options, folder).Go();
}

}  // namespace temper::bench
