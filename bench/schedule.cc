// How busy the learner's schedule keeps its actors: the real inbox under a virtual clock, beside
// what work conservation allows.
//
//   ninja schedule; build/bin/schedule [--max-lag 4] [--load 0.5] [--steps 30] [--actors
//   1,4,16,64,256,1000]
//
// Cost model: an actor decodes 64 samples together, a token of each every millisecond; lengths are
// log-normal (median 100, the longest tens of times that, cut at 4,000); training a batch takes a
// quarter of the time that all slots together need to generate it, so one after the other
// generation would be 80 %. A batch is `load` times what the slots hold. What work conservation
// allows: every free slot takes the next sample of the window that max_lag opens, at once. A line
// for each number of actors; exit 1 where the inbox takes more than 1 / 0.95 of that time. Control:
// with --max-lag 0 against the window of 4 the same must fail.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <queue>
#include <vector>

#include "cli/args.h"
#include "cli/program.h"
#include "kernels/sampling.h"
#include "learner/core/inbox.h"

namespace temper {
namespace {

using learner::Inbox;
using learner::Micros;

constexpr int kRows = 64, kGroup = 8;
constexpr Micros kToken = 1000;
constexpr double kBar = 0.95;

struct Model {
  int actors = 1, max_lag = 4, steps = 30;
  double load = 0.5;  // a batch over what the slots hold
  std::uint64_t seed = 1;

  std::uint64_t groups() const {
    return std::uint64_t(std::max(1.0, load * actors * kRows / kGroup));
  }
  std::uint64_t end() const { return groups() * std::uint64_t(steps); }
  Micros Duration(std::uint64_t grp, std::uint32_t sample) const {
    const double u = kernels::SampleUniform(seed, grp, sample, 0),
                 v = kernels::SampleUniform(seed, grp, sample, 1);
    const double normal = std::sqrt(-2 * std::log(1 - u)) * std::cos(2 * M_PI * v);
    return kToken * std::clamp<Micros>(std::llround(100 * std::exp(normal)), 1, 4000);
  }
  Micros Training() const {
    double sum = 0;
    for (std::uint64_t g = 0; g < end(); ++g) {
      for (std::uint32_t s = 0; s < kGroup; ++s) sum += double(Duration(g, s));
    }
    return Micros(sum / steps / (double(actors) * kRows) / 4);
  }
};

/// The time that the run takes where every free slot takes the next sample that the window has.
Micros Allowed(const Model& model, Micros training) {
  std::priority_queue<Micros, std::vector<Micros>, std::greater<>> free;
  for (int i = 0; i < model.actors * kRows; ++i) free.push(0);
  std::vector<Micros> trained;
  for (std::int64_t batch = 0; batch < model.steps; ++batch) {
    const std::int64_t opens = batch - model.max_lag - 1;  // training of that one opens its window
    const Micros opened = opens < 0 ? 0 : trained[std::size_t(opens)];
    Micros complete = 0;
    for (std::uint64_t g = 0; g < model.groups(); ++g) {
      for (std::uint32_t s = 0; s < kGroup; ++s) {
        const Micros begin = std::max(free.top(), opened);
        free.pop();
        free.push(begin + model.Duration(std::uint64_t(batch) * model.groups() + g, s));
        complete = std::max(complete,
                            begin + model.Duration(std::uint64_t(batch) * model.groups() + g, s));
      }
    }
    trained.push_back(std::max(complete, trained.empty() ? 0 : trained.back()) + training);
  }
  return trained.back();
}

/// The same run through the inbox.
class Run {
 public:
  Run(const Model& model, Micros training)
      : model_(model), training_(training), actors_(std::size_t(model.actors)) {
    configs::Config config;
    config.actors.count = model.actors;
    config.grpo.groups_per_step = int(model.groups());
    config.grpo.num_generations = kGroup;
    config.grpo.max_lag = model.max_lag;
    config.grpo.max_steps = model.steps;
    config.grpo.max_completion_length = 4000;
    Inbox::Options options;
    options.config = config_ = config;
    options.welcome.session = 1;
    options.welcome.numerics = "id";
    options.stop_ids = {1};
    options.detokenize = [](std::span<const std::int32_t>) { return std::string(); };
    inbox_.emplace(std::move(options), 0);
  }

  Micros Time() {
    Publish();
    Hello("w", wire::Role::kRewardWorker, 1 << 20);
    for (int i = 0; i < model_.actors; ++i) Hello(Name(i), wire::Role::kActor, kRows);
    Open();
    while (step_ < model_.steps) {
      if (events_.empty()) throw std::logic_error("schedule: nothing happens any more");
      const Event event = events_.top();
      events_.pop();
      for (; next_tick_ < event.time; next_tick_ += Inbox::kHeartbeat) Beat();
      now_ = event.time;
      if (event.actor < 0) {
        ++step_;
        Publish();
        if (step_ < model_.steps) Open();
      } else {
        Finish(event);
      }
      if (!training_now_ && step_ < model_.steps && inbox_->Complete(step_ + 1)) {
        cursor_ = inbox_->Take(step_ + 1).next_group;
        training_now_ = true;
        events_.push({now_ + training_, -1, 0, 0, 0});
      }
    }
    return now_;
  }

 private:
  struct Event {
    Micros time;
    int actor;  // -1: training ends
    std::uint64_t grp;
    std::uint32_t sample;
    std::int32_t attempt;
    bool operator<(const Event& other) const { return time > other.time; }  // the earliest first
  };
  struct Actor {
    int busy = 0;
    std::deque<Event> waiting;
  };

  static std::string Name(int actor) { return "a" + std::to_string(actor); }

  void Hello(const std::string& name, wire::Role role, int rows) {
    wire::Hello hello;
    hello.role = role;
    hello.name = name;
    hello.instance = std::hash<std::string>()(name);
    hello.numerics = {"id"};
    hello.rows = rows;
    Hear(name, hello);
  }
  template <class T>
  void Hear(const std::string& name, const T& message) {
    learner::Effects effects;
    inbox_->Handle(name, message.Encode(), now_, &effects);
    Perform(std::move(effects));
  }
  void Beat() {
    now_ = next_tick_;
    Hear("w", wire::Heartbeat());
    for (int i = 0; i < model_.actors; ++i) Hear(Name(i), wire::Heartbeat());
    learner::Effects effects;
    inbox_->Tick(now_, &effects);
    Perform(std::move(effects));
  }
  void Publish() {
    training_now_ = false;
    auto set = std::make_shared<learner::WeightSet>();
    set->version = std::uint32_t(step_);
    learner::Effects effects;
    inbox_->Publish(std::move(set), &effects);
    Perform(std::move(effects));
  }
  void Open() {
    for (; next_group_ < std::min(model_.end(), learner::WindowEnd(config_, step_ + 1, cursor_));
         ++next_group_) {
      store::GroupRow row;
      row.grp = next_group_;
      row.prompt_json = "\"p\"";
      row.row_json = "{}";
      row.prompt_ids = {2};
      inbox_->AddGroup(row, std::nullopt, std::nullopt);
    }
    learner::Effects effects;
    inbox_->Open(step_ + 1, now_, &effects);
    Perform(std::move(effects));
  }
  void Perform(learner::Effects effects) {
    if (effects.failure) std::rethrow_exception(effects.failure);
    for (const auto& [peer, message] : effects.send) {
      const int actor = peer[0] == 'a' ? std::stoi(peer.substr(1)) : -1;
      switch (static_cast<wire::Kind>(message.kind)) {
        case wire::Kind::kWeightsManifest:
          Hear(peer, wire::WeightsLoaded{1, wire::WeightsManifest::Decode(message).version});
          break;
        case wire::Kind::kGrant: {
          const wire::Grant grant = wire::Grant::Decode(message);
          for (const wire::GrantedGroup& group : grant.groups) {
            for (const std::uint32_t s : group.samples)
              Begin({0, actor, group.grp, s, group.attempt});
          }
          break;
        }
        case wire::Kind::kScoreRequest: {
          const wire::ScoreRequest request = wire::ScoreRequest::Decode(message);
          wire::ScoreResult result{request.id, request.grp, {}};
          for (const auto& s : request.samples) result.samples.push_back({s.sample, 1.0, "ok", {}});
          Hear(peer, result);
          break;
        }
        default:
          break;
      }
    }
  }
  void Begin(Event sample) {
    Actor& actor = actors_[std::size_t(sample.actor)];
    if (actor.busy == kRows) return actor.waiting.push_back(sample);
    ++actor.busy;
    sample.time = now_ + model_.Duration(sample.grp, sample.sample);
    events_.push(sample);
  }
  void Finish(const Event& event) {
    Actor& actor = actors_[std::size_t(event.actor)];
    --actor.busy;
    if (!actor.waiting.empty()) {
      Begin(actor.waiting.front());
      actor.waiting.pop_front();
    }
    wire::Rollout rollout;
    rollout.session = 1;
    rollout.id = {event.grp, event.sample, event.attempt};
    rollout.finish = "stop";
    rollout.version = std::uint32_t(step_);
    rollout.ids = {1};
    rollout.logp = {-1.0f};
    Hear(Name(event.actor), rollout);
  }

  const Model model_;
  const Micros training_;
  configs::Config config_;
  std::optional<Inbox> inbox_;
  std::vector<Actor> actors_;
  std::priority_queue<Event> events_;
  Micros now_ = 0, next_tick_ = Inbox::kHeartbeat;
  std::int64_t step_ = 0;
  std::uint64_t next_group_ = 0, cursor_ = 0;
  bool training_now_ = false;
};

int Main(const cli::Arguments& arguments) {
  Model model;
  int window = -1;
  std::string counts = "1,4,16,64,256,1000";
  cli::Args args("schedule", "The schedule beside what work conservation allows.");
  args.Integer("--max-lag", "of the run", 0, 100, &model.max_lag);
  args.Integer("--window", "max_lag of what is allowed; -1 = the run's", -1, 100, &window);
  args.Number("--load", "a batch over what the actors decode together", 0.01, 100, &model.load);
  args.Integer("--steps", "batches", 2, 10000, &model.steps);
  args.Text("--actors", "N,N,...", "numbers of actors", &counts);
  if (!args.Parse(arguments)) return 0;
  bool good = true;
  std::stringstream list(counts);
  for (std::string count; std::getline(list, count, ',');) {
    model.actors = std::stoi(count);
    const Micros training = model.Training();
    Model ideal = model;
    if (window >= 0) ideal.max_lag = window;
    const Micros allowed = Allowed(ideal, training), took = Run(model, training).Time();
    const double share = double(allowed) / double(took);
    good &= share >= kBar;
    std::printf(
        "{\"actors\": %d, \"max_lag\": %d, \"load\": %g, \"batches\": %d, \"rollouts\": %llu, "
        "\"seconds\": %.2f, \"allowed\": %.2f, \"share\": %.4f}\n",
        model.actors, model.max_lag, model.load, model.steps,
        static_cast<unsigned long long>(model.end() * kGroup), double(took) / 1e6,
        double(allowed) / 1e6, share);
    std::fflush(stdout);
  }
  return good ? 0 : 1;
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) { return temper::Main({argv + 1, argv + argc}); }
