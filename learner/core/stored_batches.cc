#include "learner/core/stored_batches.h"

#include <chrono>
#include <filesystem>
#include <stdexcept>
#include <utility>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/version.h"
#include "learner/core/run_folder.h"
#include "store/history.h"

namespace temper::learner {
namespace {

void CheckSettings(const configs::Config& config, const store::History& history,
                   const std::string& from) {
  const configs::Grpo& grpo = config.grpo;
  const auto refuse = [&](const std::string& what) {
    throw UserError("--from " + from + ": " + what);
  };
  if (grpo.num_generations != history.group_size() || grpo.groups_per_step != history.groups()) {
    refuse("its steps have " + std::to_string(history.groups()) + " groups of " +
           std::to_string(history.group_size()) +
           "; set grpo.groups_per_step and "
           "grpo.num_generations to these");
  }
  const std::int64_t wanted = grpo.max_steps / grpo.updates();
  if (wanted > history.batches()) {
    refuse("it trained " + std::to_string(history.batches()) +
           " batches, grpo.max_steps asks for " + std::to_string(wanted));
  }
  if (grpo.eval_steps > 0) refuse("grpo.eval_steps needs actors; set it to 0");
}

store::Trajectories OpenStore(const StoredBatches::Options& options) {
  const std::string path = options.config.output_dir + "/trajectories.db";
  if (options.resume_step) return store::Trajectories::Open(path);
  store::Trajectories::RunInfo run{options.config.name, kVersion, options.numerics,
                                   configs::ToJson(options.config).dump(),
                                   std::chrono::duration_cast<std::chrono::milliseconds>(
                                       std::chrono::system_clock::now().time_since_epoch())
                                       .count()};
  return store::Trajectories::Create(path, run);
}

/// As the inbox hands a group over: every sample in its place, no mark of the former training.
ScoredGroup ToScored(store::History::Group group, int size) {
  ScoredGroup scored;
  scored.grp = group.row.grp;
  scored.prompt_ids = group.row.prompt_ids;
  scored.samples.resize(static_cast<std::size_t>(size));
  scored.parts.resize(static_cast<std::size_t>(size));
  for (int i = 0; i < size; ++i) {
    store::RolloutRow& row = scored.samples[static_cast<std::size_t>(i)];
    row.grp = scored.grp;
    row.sample = static_cast<std::uint32_t>(i);
    row.state = "dropped";
  }
  for (std::size_t i = 0; i < group.live.size(); ++i) {
    store::RolloutRow& row = group.live[i];
    if (row.sample >= scored.samples.size()) continue;
    if (row.state != "dropped") row.state = "scored";
    row.advantage.reset();
    row.trained_step.reset();
    row.lag.reset();
    scored.parts[row.sample] = std::move(group.parts[i]);
    scored.samples[row.sample] = std::move(row);
  }
  return scored;
}

}  // namespace

struct StoredBatches::State {
  State(Options o) : options(std::move(o)), history(options.from), store(OpenStore(options)) {}
  Options options;
  store::History history;
  store::Trajectories store;
  std::uint64_t tokens = 0;
};

StoredBatches::StoredBatches(Options options) {
  CheckSettings(options.config, store::History(options.from), options.from);
  state_ = std::make_unique<State>(std::move(options));
  const std::string& run = state_->options.config.output_dir;
  if (state_->options.resume_step) {
    state_->store.Resume(*state_->options.resume_step, std::nullopt);
  } else {
    WriteFileWhole(run + "/from", std::filesystem::absolute(state_->options.from).string() + "\n");
  }
}

StoredBatches::~StoredBatches() = default;

Batch StoredBatches::NextBatch(std::int64_t number) {
  State& s = *state_;
  const int size = s.options.config.grpo.num_generations;
  Batch batch;
  s.store.Begin();
  for (store::History::Group& group : s.history.Batch(number)) {
    s.store.PutGroup(group.row);
    ScoredGroup scored = ToScored(std::move(group), size);
    for (std::size_t i = 0; i < scored.samples.size(); ++i) {
      const store::RolloutRow& row = scored.samples[i];
      if (row.ids.empty()) continue;  // never delivered
      for (const std::int32_t id : row.ids) {
        if (id < 0 || id >= s.options.valid_ids)
          throw UserError("--from " + s.options.from + ": " + row.Name() + " has id " +
                          std::to_string(id) + ", the tokenizer's are [0, " +
                          std::to_string(s.options.valid_ids) + ")");
      }
      s.tokens += row.ids.size();
      store::RolloutRow copy = row;
      copy.state = "received";
      copy.reason.clear();
      copy.score.reset();
      copy.status.clear();
      s.store.PutRollout(copy);
      s.store.PutScore(row.grp, row.sample, row.attempt, row.score, row.status, scored.parts[i]);
      if (row.state == "dropped") s.store.Drop(row.grp, row.sample, row.attempt, row.reason);
    }
    batch.next_group = scored.grp + 1;
    batch.groups.push_back(std::move(scored));
  }
  s.store.Commit();
  return batch;
}

void StoredBatches::CommitStep(const store::StepRow& step,
                               const std::vector<store::TrainedSample>& trained,
                               const Json& metrics, const std::vector<ScoredGroup>&) {
  state_->store.PutStep(step, trained, metrics);
}

std::vector<ScoredGroup> StoredBatches::Evaluate(std::vector<EvalRow>) {
  throw std::logic_error("StoredBatches: nobody generates");
}

void StoredBatches::SetCheckpoint(std::int64_t step, const std::string& folder) {
  state_->store.SetCheckpoint(step, folder);
}

ServiceStats StoredBatches::TakeStats() {
  ServiceStats stats;
  stats.completion_tokens = std::exchange(state_->tokens, 0);
  return stats;
}

void CheckFrom(const std::string& run_dir, const std::string& from) {
  const std::string path = run_dir + "/from";
  std::string before;
  if (configs::Exists(path)) before = configs::ReadWholeFile(path, 1 << 16);
  const std::string now = from.empty() ? "" : std::filesystem::absolute(from).string() + "\n";
  if (before == now) return;
  if (before.empty()) throw UserError(run_dir + ": this run has actors; resume it without --from");
  before.pop_back();
  throw UserError(run_dir + ": this run trains from " + before + "; resume it with --from " +
                  before);
}

}  // namespace temper::learner
