#include "learner/core/service.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <future>
#include <random>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/version.h"
#include "learner/core/serving.h"
#include "reward/script_watch.h"

namespace temper::learner {
namespace {

std::int64_t WallMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string RunFile(const Service::Options& options, const char* name) {
  return (std::filesystem::absolute(options.run_dir) / name).string();
}

std::string BindOf(const Service::Options& options) {
  if (!options.bind.empty()) return options.bind;
  std::string bind = options.config.wire.bind;
  if (bind.empty()) bind = "ipc://OUTPUT_DIR/wire";
  constexpr std::string_view kFolder = "OUTPUT_DIR";
  if (const std::size_t at = bind.find(kFolder); at != bind.npos)
    bind.replace(at, kFolder.size(), std::filesystem::absolute(options.run_dir).string());
  return bind;
}

/// Scripts travel as text: a remote worker has no such file.
std::vector<std::pair<std::string, std::string>> ReadScripts(const configs::Config& config) {
  std::vector<std::pair<std::string, std::string>> files;
  for (const configs::RewardFunction& reward : config.rewards) {
    if (reward.script.empty()) continue;
    files.emplace_back(reward.script, configs::ReadWholeFile(reward.script, 1 << 20));
  }
  return files;
}

Inbox::Options InboxOptions(const Service::Options& options) {
  if (options.valid_ids < 1 || options.stop_ids.empty() || !options.prompts ||
      !options.detokenize) {
    throw std::logic_error("Service: valid_ids, stop_ids, prompts and detokenize must be set");
  }
  Inbox::Options inbox;
  inbox.config = options.config;
  wire::Welcome& welcome = inbox.welcome;
  std::random_device random;
  welcome.session = static_cast<std::uint64_t>(random()) << 32 | random() | 1;
  welcome.run = options.config.name;
  welcome.peer_timeout_s = options.config.wire.peer_timeout_s;
  welcome.numerics = options.numerics;
  welcome.config = configs::ToJson(options.config).dump();
  welcome.model_dir = std::filesystem::absolute(options.model_dir).string();
  welcome.model_config = configs::ReadWholeFile(options.model_dir + "/config.json", 8 << 20);
  welcome.valid_ids = options.valid_ids;
  welcome.files = ReadScripts(options.config);
  inbox.stop_ids = options.stop_ids;
  inbox.experts = options.experts;
  inbox.fabric = options.fabric;
  inbox.detokenize = options.detokenize;
  return inbox;
}

store::Trajectories OpenStore(const Service::Options& options) {
  const std::string path = RunFile(options, "trajectories.db");
  if (options.resume_step) return store::Trajectories::Open(path);
  store::Trajectories::RunInfo run{options.config.name, kVersion, options.numerics,
                                   configs::ToJson(options.config).dump(), WallMs()};
  return store::Trajectories::Create(path, run);
}

void WriteEndpoint(const std::string& path, const std::string& endpoint) {
  configs::WriteWholeFile(path + ".tmp", endpoint + "\n");
  if (std::rename((path + ".tmp").c_str(), path.c_str()) != 0) {
    throw MachineError(path + ": cannot be written");
  }
}

}  // namespace

struct Service::State {
  explicit State(Service::Options o)
      : options(std::move(o)),
        inbox_options(InboxOptions(options)),
        scripts(inbox_options.welcome.files),
        server(std::make_unique<wire::Server>(BindOf(options), options.config.wire.keys)),
        endpoint(server->endpoint()),
        store(OpenStore(options)),
        resume_pending(options.resume_step.has_value()) {
    if (resume_pending && options.config.grpo.max_lag == 0) {
      store.Resume(*options.resume_step, std::nullopt, options.resume_group);
      resume_pending = false;
    }
    if (options.resume_step) last_stored = store.LastGroup();
    serving =
        std::make_unique<Serving>(std::move(server), std::move(store), std::move(inbox_options));
    WriteEndpoint(RunFile(options, "endpoint"), endpoint);
    WatchScripts(scripts);
  }

  void WatchScripts(const reward::ScriptTexts& scripts) {
    reward::ScriptWatchOptions watched;
    watched.rewards = options.config.rewards;
    watched.reward = options.config.reward;
    watched.zygote_argv = options.zygote_argv;
    watched.period_s = options.script_period_s;
    watched.accept = [this](const reward::ScriptTexts& files) {
      serving->Post([files](Serving::Context& at) { at.inbox.UseScripts(files, &at.effects); });
    };
    watched.note = [](const std::string& line) {
      std::fprintf(stderr, "learner: %s\n", line.c_str());
    };
    watch = std::make_unique<reward::ScriptWatch>(std::move(watched), scripts);
    watch->Start();
  }

  /// A group of the window with what the database has of it; on the serving thread.
  void AddGroup(Serving::Context& at, store::GroupRow row,
                std::optional<std::string> answer) const {
    const std::uint64_t grp = row.grp;
    std::optional<Inbox::Stored> stored;
    std::optional<store::GroupRow> before;
    if (last_stored && grp <= *last_stored) before = at.store.Group(grp);
    if (before) {
      if (before->prompt_ids != row.prompt_ids) {
        throw UserError(
            RunFile(options, "trajectories.db") + ": g" + std::to_string(grp) +
            " has another prompt than the dataset gives now; resume with the data of the run");
      }
      stored = Inbox::Stored{std::move(*before), at.store.LiveRollouts(grp), {}};
      for (const store::RolloutRow& sample : stored->live) {
        stored->parts.push_back(at.store.Parts(sample));
      }
    }
    at.inbox.AddGroup(std::move(row), std::move(answer), std::move(stored));
  }

  Service::Options options;
  Inbox::Options inbox_options;  // moved to serving
  const reward::ScriptTexts scripts;
  std::unique_ptr<wire::Server> server;
  std::string endpoint;
  store::Trajectories store;  // moved to serving
  bool resume_pending =
      false;  // an asynchronous run: the first Publish says which versions survive
  std::optional<std::uint64_t> last_stored;
  std::uint64_t next_group = 0;         // to be added
  std::optional<std::uint64_t> cursor;  // where the next batch begins
  double wait_seconds = 0;
  Micros waiting_since = 0;  // the newest NextBatch
  std::shared_ptr<const WeightSet> published;  // the newest; what the next delta begins with
  std::unique_ptr<Serving> serving;
  std::unique_ptr<reward::ScriptWatch> watch;  // last: it posts to serving
};

Service::Service(Options options) : state_(std::make_unique<State>(std::move(options))) {}

Service::~Service() = default;

const std::string& Service::endpoint() const { return state_->endpoint; }

void Service::Publish(std::shared_ptr<const WeightSet> weights) {
  if (state_->resume_pending) {
    state_->resume_pending = false;
    const std::int64_t step = *state_->options.resume_step;
    const std::uint32_t version = weights->version;
    const std::optional<std::uint64_t> group = state_->options.resume_group;
    state_->serving->Call([=](Serving::Context& at) { at.store.Resume(step, version, group); });
  }
  std::shared_ptr<const WeightDelta> delta;
  if (state_->published) delta = MakeDelta(*state_->published, *weights);
  state_->published = weights;
  state_->serving->Post(
      [weights = std::move(weights), delta = std::move(delta)](Serving::Context& at) mutable {
        at.inbox.Publish(std::move(weights), &at.effects, std::move(delta));
      });
}

Batch Service::NextBatch(std::int64_t number) {
  State& s = *state_;
  s.waiting_since = SteadyMicros();
  const auto groups = static_cast<std::uint64_t>(s.options.config.grpo.groups_per_step);
  if (!s.cursor)
    s.cursor = s.options.resume_group.value_or(static_cast<std::uint64_t>(number - 1) * groups);
  const std::uint64_t first = std::max(s.next_group, *s.cursor);
  const std::uint64_t end = WindowEnd(s.options.config, number, *s.cursor);
  struct Prompt {
    store::GroupRow row;
    std::optional<std::string> answer;
  };
  std::vector<Prompt> prompts;
  for (s.next_group = first; s.next_group < end; ++s.next_group) {
    Prompt prompt{s.options.prompts->Prompt(s.next_group), std::nullopt};
    bool has = false;
    std::string answer = s.options.prompts->Answer(s.next_group, &has);
    if (has) prompt.answer = std::move(answer);
    prompts.push_back(std::move(prompt));
  }
  Batch batch = s.serving->NextBatch(number, [&](Serving::Context& at) {
    for (Prompt& prompt : prompts) s.AddGroup(at, std::move(prompt.row), std::move(prompt.answer));
  });
  s.cursor = batch.next_group;
  s.wait_seconds += double(SteadyMicros() - s.waiting_since) * 1e-6;
  return batch;
}

void Service::CommitStep(const store::StepRow& step,
                         const std::vector<store::TrainedSample>& trained, const Json& metrics,
                         const std::vector<ScoredGroup>& passed_over) {
  state_->serving->Call([&](Serving::Context& at) {
    at.store.Begin();
    at.store.PutStep(step, trained, metrics);
    for (const ScoredGroup& group : passed_over) {
      for (const store::RolloutRow& row : group.samples) {
        if (row.state != "dropped") at.store.Drop(row.grp, row.sample, row.attempt, "zero_std");
      }
    }
    at.store.Commit();
  });
}

std::vector<ScoredGroup> Service::Evaluate(std::vector<EvalRow> rows) {
  return state_->serving->Evaluate([&](Serving::Context& at) {
    std::uint64_t grp = Inbox::kFirstEval;
    for (EvalRow& row : rows) {
      row.row.grp = grp++;
      at.inbox.AddEval(std::move(row.row), std::move(row.answer));
    }
  });
}

void Service::SetCheckpoint(std::int64_t step, const std::string& folder) {
  state_->serving->Call([&](Serving::Context& at) { at.store.SetCheckpoint(step, folder); });
}

ServiceStats Service::TakeStats() {
  ServiceStats stats;
  state_->serving->Call([&](Serving::Context& at) { stats = at.inbox.TakeStats(); });
  stats.wait_seconds = std::exchange(state_->wait_seconds, 0);
  if (stats.loaded_at > state_->waiting_since)
    stats.weights_seconds = double(stats.loaded_at - state_->waiting_since) * 1e-6;
  return stats;
}

}  // namespace temper::learner
