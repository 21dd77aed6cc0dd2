#include "bench/lossy_run.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>

#include "actor/actor.h"
#include "bench/lossy_network.h"
#include "configs/sha256.h"
#include "learner/core/recorder.h"
#include "tests/actor/fixture.h"

namespace temper::bench {
namespace {

using learner::Inbox;
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
    StartLearner();
    Micros progress = now_;
    std::int64_t seen = 0;
    while (step_ < steps_ && report_.stuck.empty()) {
      Turn();
      if (step_ > seen) {
        seen = step_;
        progress = now_;
      }
      if (now_ - progress > kStuck) {
        report_.stuck = "step " + std::to_string(step_ + 1) + " was not finished within " +
                        std::to_string(kStuck / kMinute) + " virtual minutes";
      }
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
  bool IsActor(const Place& place) const { return place.name[0] == 'a'; }
  bool Chance(double per_minute) {
    return network_.Roll() < per_minute * static_cast<double>(kTick) / kMinute;
  }

  void Turn() {
    now_ += kTick;
    if (!inbox_) StartLearner();
    const bool doomed =
        step_ * (o_.learner_kills + 1) >= steps_ * (kills_ + 1) && kills_ < o_.learner_kills;
    for (Place& place : places_) Live(place);
    for (LossyNetwork::Packet& packet : network_.Arrived(now_)) {
      if (!inbox_ && packet.to_learner) continue;
      Arrive(packet);
      if (doomed && inbox_ && packet.to_learner && network_.Roll() < 0.1) {
        ++kills_;
        ++report_.learner_kills;
        EndLearner();
      }
    }
    if (!inbox_) return;
    learner::Effects effects;
    inbox_->Tick(now_, &effects);
    Perform(std::move(effects));
    Train();
    if (recorder_->Due(now_)) Commit();
  }

  // The learner: what Serving does, without threads and sockets.

  void StartLearner() {
    const std::string path = folder_ + "/trajectories.db";
    ++session_;
    Inbox::Options options;
    options.config = run_;
    options.welcome.session = session_;
    options.welcome.run = run_.name;
    options.welcome.peer_timeout_s = run_.wire.peer_timeout_s;
    options.welcome.numerics = "canon-1/fp32/cache-fp32";
    options.welcome.config = "{}";
    options.welcome.model_dir = "/m";
    options.welcome.model_config = config_.raw.dump();
    options.welcome.valid_ids = 90;
    options.stop_ids = {1};
    options.detokenize = [](std::span<const std::int32_t>) { return std::string(); };
    inbox_ = std::make_unique<Inbox>(std::move(options), now_);
    if (!std::filesystem::exists(path)) {
      store::Trajectories::Create(path, {"lossy", "0", "id", "{}", 0});
    }
    recorder_ = std::make_unique<learner::Recorder>(store::Trajectories::Open(path));
    const auto cursor = static_cast<std::uint64_t>(step_) * GroupsPerStep();
    if (session_ > 1) {
      recorder_->store().Resume(step_, o_.max_lag > 0 ? std::optional(Version()) : std::nullopt,
                                cursor);
    }
    next_group_ = cursor_ = cursor;
    last_stored_ = recorder_->store().LastGroup();
    PublishNow();
    OpenNext();
  }

  /// kill -9: what is not committed is gone, and so is what is on the way to it.
  void EndLearner() {
    recorder_.reset();
    inbox_.reset();
    for (Place& place : places_) place.before = std::exchange(place.connection, "");
  }

  std::uint64_t GroupsPerStep() const { return static_cast<std::uint64_t>(o_.groups_per_step); }
  std::uint32_t Version() const { return static_cast<std::uint32_t>(step_); }

  void PublishNow() {
    const actor::Published published = actor::Publish(config_, session_, Version());
    auto set = std::make_shared<learner::WeightSet>();
    set->version = Version();
    for (const auto& t : published.manifest.tensors) {
      set->tensors.push_back({t.name, t.dtype, t.shape, t.begin, t.end, t.sha256});
    }
    set->bytes.assign(published.bytes);
    learner::Effects effects;
    inbox_->Publish(std::move(set), &effects);
    Perform(std::move(effects));
  }

  void OpenNext() {
    if (step_ >= steps_) return;
    for (; next_group_ < learner::WindowEnd(run_, step_ + 1, cursor_); ++next_group_) {
      store::GroupRow row;
      row.grp = next_group_;
      row.prompt_json = "\"p\"";
      row.row_json = "{}";
      row.prompt_ids = {static_cast<std::int32_t>(next_group_ % 80) + 2, 3};
      inbox_->AddGroup(row, std::nullopt, StoredOf(next_group_));
    }
    learner::Effects effects;
    inbox_->Open(step_ + 1, now_, &effects);
    Perform(std::move(effects));
  }

  std::optional<Inbox::Stored> StoredOf(std::uint64_t grp) {
    if (!last_stored_ || grp > *last_stored_) return std::nullopt;
    auto before = recorder_->store().Group(grp);
    if (!before) return std::nullopt;
    Inbox::Stored stored{std::move(*before), recorder_->store().LiveRollouts(grp), {}};
    for (const auto& row : stored.live) stored.parts.push_back(recorder_->store().Parts(row));
    return stored;
  }

  void Train() {
    if (!inbox_->Complete(step_ + 1)) return;
    Commit();
    const learner::Batch batch = inbox_->Take(step_ + 1);
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
    recorder_->store().PutStep(row, trained, Json::object());
    ++step_;
    cursor_ = batch.next_group;
    PublishNow();
    OpenNext();
  }

  void Commit() {
    for (const auto& [peer, ack] : recorder_->Commit()) {
      if (!o_.acknowledge_early) network_.Send(peer, false, ack.Encode(), now_);
    }
  }

  void Perform(learner::Effects effects) {
    for (learner::StoreWrite& write : effects.writes) {
      recorder_->Write(std::move(write), now_, now_ / 1000);
    }
    recorder_->Acknowledge(effects.acks);
    if (o_.acknowledge_early) {
      for (const auto& [peer, id] : effects.acks) {
        network_.Send(peer, false, wire::Ack{{id}}.Encode(), now_);
      }
    }
    for (const auto& [peer, message] : effects.send) network_.Send(peer, false, message, now_);
    if (!effects.failure) return;
    try {
      std::rethrow_exception(effects.failure);
    } catch (const std::exception& error) {
      report_.stuck = error.what();
    }
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
      learner::Effects effects;
      inbox_->Handle(packet.connection, message, now_, &effects);
      return Perform(std::move(effects));
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
      learner::Effects effects;
      if (!cut.empty() && network_.Roll() < 0.5) inbox_->PeerGone(cut, &effects);  // else: silence
      Perform(std::move(effects));
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
    const auto all = static_cast<std::uint64_t>(steps_) * GroupsPerStep() *
                     static_cast<std::uint64_t>(o_.group_size);
    report_.missing = all - trained.size();
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
  std::unique_ptr<Inbox> inbox_;
  std::unique_ptr<learner::Recorder> recorder_;
  std::set<wire::RolloutId> acknowledged_;
  std::optional<std::uint64_t> last_stored_;
  std::uint64_t session_ = 0, next_group_ = 0, cursor_ = 0;
  std::int64_t step_ = 0, steps_ = 0, kills_ = 0;  // step_: trained
  Micros now_ = 0;
  LossyReport report_;
};

}  // namespace

LossyReport LossyRun(const LossyOptions& options, const std::string& folder) {
  return Run(options, folder).Go();
}

}  // namespace temper::bench
