#include "learner/grpo.h"

#include <cmath>
#include <filesystem>
#include <optional>
#include <utility>

#include "configs/error.h"
#include "configs/files.h"
#include "engine/stop_ids.h"
#include "engine/tokenizer.h"
#include "learner/batch_gradient.h"
#include "learner/checkpoint.h"
#include "learner/core/metrics.h"
#include "learner/core/progress.h"
#include "learner/core/prompts.h"
#include "learner/core/run_folder.h"
#include "learner/core/stopwatch.h"
#include "learner/core/stored_batches.h"
#include "learner/grpo_metrics.h"
#include "learner/process.h"
#include "learner/shared_batch.h"
#include "learner/weight_publisher.h"

namespace temper::learner {

namespace {

class Trainer {
 public:
  Trainer(const configs::Config& config, Communicator& ranks, const std::string& bind,
          const std::vector<std::string>& zygote_argv, const std::string& from);
  int Run();

 private:
  /// The root's part: prompts, database, peers.
  void Serve(const std::string& bind, const std::vector<std::string>& zygote_argv,
             const std::string& from);
  void ReadPrompts(const std::vector<std::string>& zygote_argv);
  void Begin();
  /// Gives the policy what the run's last checkpoint has.
  void Continue();
  void Save();
  /// Notes the checkpoint that became durable; with `wait` that under way too.
  void NoteCheckpoint(bool wait);
  void Publish();
  /// Whether the batch just trained is the run's last, or reached another multiple of `steps`.
  bool Due(int steps) const {
    const std::int64_t before = state_.step - grpo_.updates();
    return state_.step == grpo_.max_steps || (steps > 0 && state_.step / steps != before / steps);
  }
  /// All optimizer steps of the next batch; a line of metrics each.
  std::vector<Json> TrainBatch();
  Preparation Prepared() const;
  /// Of grpo.routing_replay.
  ExpertShape Replayed() const {
    if (grpo_.routing_replay != "rollout") return {};
    return {model_.moe_layers(), model_.top_k, model_.experts};
  }
  UpdateReport Optimize(const BatchGradient& gradient);
  void SyncReference();
  void RefreshReference();
  Json Evaluate();
  /// Completes the lines with what is known of the whole batch, and commits its steps.
  void Finish(const Batch& taken, const RolloutBatch& batch, const Json& of_batch,
              std::uint32_t version, double seconds, std::vector<Json>* lines);

  const configs::Config& config_;
  Communicator& ranks_;
  const configs::Grpo& grpo_;
  const engine::ModelConfig model_;
  const engine::Tokenizer tokenizer_;
  std::shared_ptr<const PromptSource> prompts_, eval_prompts_;  // null: not the root
  TrainState state_;
  std::unique_ptr<Policy> policy_, reference_;
  std::string resumed_from_;  // a checkpoint's folder
  const std::string from_;    // --from: a run whose rollouts are trained
  std::optional<std::int64_t> resume_step_;
  std::unique_ptr<Batches> service_;  // null: not the root
  WeightPublisher publisher_;
  std::optional<CheckpointSaver> saver_;
  SkippedSteps skipped_{"grpo"};
};

Trainer::Trainer(const configs::Config& config, Communicator& ranks, const std::string& bind,
                 const std::vector<std::string>& zygote_argv, const std::string& from)
    : config_(config),
      ranks_(ranks),
      grpo_(config.grpo),
      model_(engine::ReadModelConfig(config.model)),
      tokenizer_(config.model),
      from_(from) {
  if (ranks_.root()) {
    ReadPrompts(zygote_argv);
    if (engine::StopIds(model_, tokenizer_).empty())
      throw UserError(config.model + ": neither config.json nor the tokenizer has an EOS token");
    if (config.resume) CheckFrom(config.output_dir, from);
  }
  Begin();
  if (ranks_.root()) Serve(bind, zygote_argv, from);
}

void Trainer::ReadPrompts(const std::vector<std::string>& zygote_argv) {
  prompts_ = MakePrompts(config_, tokenizer_, model_, zygote_argv);
  if (grpo_.eval_steps == 0) return;
  configs::Config eval = config_;
  eval.data.task.clear();
  eval.data.train = config_.data.eval;
  eval.data.shuffle = false;
  eval_prompts_ = MakePrompts(eval, tokenizer_, model_, zygote_argv);
}

void Trainer::Serve(const std::string& bind, const std::vector<std::string>& zygote_argv,
                    const std::string& from) {
  const int valid_ids = std::min(tokenizer_.size(), model_.vocab_size);
  if (!from.empty()) {
    service_ = std::make_unique<StoredBatches>(
        StoredBatches::Options{config_, from, NumericsId(config_), valid_ids, resume_step_});
    return;
  }
  Service::Options service;
  service.config = config_;
  service.run_dir = config_.output_dir;
  service.bind = bind;
  service.numerics = NumericsId(config_);
  service.model_dir = config_.model;
  service.stop_ids = engine::StopIds(model_, tokenizer_);
  service.valid_ids = valid_ids;
  service.prompts = prompts_;
  service.experts = Replayed();
  if (config_.learner.weights_fabric == "nccl") service.fabric = engine::OpenFabric(config_.device);
  service.zygote_argv = zygote_argv;
  service.resume_step = resume_step_;
  if (resume_step_) service.resume_group = state_.next_group;
  service.detokenize = [this](std::span<const std::int32_t> ids) {
    return tokenizer_.Decode({ids.begin(), ids.end()}, /*skip_special=*/true);
  };
  service_ = std::make_unique<Service>(std::move(service));
}

void Trainer::Begin() {
  Policy::Options options;
  options.threads = UseThreads(config_.threads);
  options.plain = config_.learner.forward == "libtorch";
  options.recompute = config_.learner.gradient_checkpointing;
  options.numerics = NumericsOf(config_);
  options.lora = config_.lora;
  options.shard = ranks_.shard();
  options.device = ranks_.device();
  policy_ = std::make_unique<Policy>(model_, options);
  if (config_.resume) {
    Continue();
  } else {
    policy_->Load(config_.model);
    if (policy_->lora()) policy_->BeginAdapters(config_.seed);
    if (ranks_.root()) BeginRun(config_);
  }
  state_.config = configs::ToJson(config_);
  state_.numerics = NumericsId(config_);
  if (grpo_.beta > 0) {
    options.gradients = false;
    reference_ = std::make_unique<Policy>(model_, options);
    const bool synced =
        config_.resume && grpo_.sync_ref_model && state_.step >= grpo_.ref_model_sync_steps;
    // What no sync has touched keeps an FP8 model's own codes.
    if (!synced || policy_->lora() != nullptr) reference_->Load(config_.model);
    if (synced) {
      LoadReference(resumed_from_, reference_->parameters());
      RefreshReference();
    }
  }
  saver_.emplace(config_.output_dir, grpo_.save_total_limit);
  if (config_.resume) return;
  Save();  // a run killed in its first steps resumes from here
  saver_->Take(/*wait=*/true);
}

void Trainer::Continue() {
  FoundCheckpoint found;
  if (ranks_.root()) {
    found = FindCheckpoint(config_.output_dir);
    ContinueRun(config_, found.state.config);
  }
  ShareCheckpoint(ranks_, &found);
  Restore(found.dir, config_.model, *policy_);
  resumed_from_ = found.dir;
  state_ = found.state;
  ++state_.incarnation;
  if (state_.step % grpo_.updates() != 0) {
    throw UserError(found.dir + ": step " + std::to_string(state_.step) +
                    " is inside a batch of num_iterations * mini_batches = " +
                    std::to_string(grpo_.updates()) + " steps; resume with the run's own settings");
  }
  // Killed between its first checkpoint and its database, a run has acknowledged nothing yet.
  if (state_.step > 0 || configs::Exists(config_.output_dir + "/trajectories.db"))
    resume_step_ = state_.step;
}

void Trainer::NoteCheckpoint(bool wait) {
  if (const auto saved = saver_->Take(wait)) service_->SetCheckpoint(saved->step, saved->name);
}

void Trainer::Save() {
  auto snapshot = std::make_shared<const Snapshot>(
      *policy_, config_.model, grpo_.sync_ref_model ? &reference_->parameters() : nullptr, &ranks_);
  if (!ranks_.root()) return;
  const std::uint64_t rows = prompts_->rows(), next = state_.next_group;
  state_.epoch = rows == 0 ? 0 : next / rows;
  state_.position = rows == 0 ? next : next % rows;
  saver_->Save(state_, std::move(snapshot));
}

void Trainer::Publish() {
  if (!ranks_.root()) return;
  service_->Publish(publisher_.Next(*policy_, state_.version, tokenizer_.size()));
  if (config_.keep_versions != "checkpoints") {
    SaveVersion(config_.output_dir, state_.version, policy_->published());
    PruneVersions(config_.output_dir, config_.keep_versions, state_.version);
  }
}

Preparation Trainer::Prepared() const {
  Preparation preparation;
  preparation.version = state_.version;
  // A stored run's versions number other weights.
  preparation.same_bits =
      config_.numerics == "strict" && config_.learner.forward == "kernels" && from_.empty();
  preparation.ranks = &ranks_;
  return preparation;
}

UpdateReport Trainer::Optimize(const BatchGradient& gradient) {
  const UpdateReport update =
      Update(*policy_, grpo_, ++state_.step, gradient.loads, gradient.loss.loss, &ranks_);
  if (ranks_.root()) skipped_.Note(update, state_.step);
  if (grpo_.sync_ref_model && state_.step % grpo_.ref_model_sync_steps == 0) SyncReference();
  return update;
}

void Trainer::SyncReference() {
  const float alpha = float(grpo_.ref_model_mixup_alpha);
  float* to = reference_->parameters().values();
  const float* from = policy_->parameters().values();
  for (std::int64_t i = 0; i < policy_->parameters().size(); ++i)
    to[i] = (1 - alpha) * to[i] + alpha * from[i];
  RefreshReference();
}

/// What adapters leave alone keeps the model's own codes, as in the policy.
void Trainer::RefreshReference() {
  if (policy_->lora() == nullptr) return reference_->Refresh();
  reference_->Refresh(policy_->lora()->entries());
}

Json Trainer::Evaluate() {
  Stopwatch watch;
  std::vector<Batches::EvalRow> rows(eval_prompts_->rows());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].row = eval_prompts_->Prompt(i);
    bool has = false;
    std::string answer = eval_prompts_->Answer(i, &has);
    if (has) rows[i].answer = std::move(answer);
  }
  double sum = 0, scored = 0, length = 0, stopped = 0;
  for (const ScoredGroup& group : service_->Evaluate(std::move(rows))) {
    const store::RolloutRow& row = group.samples[0];
    length += double(row.ids.size());
    stopped += row.finish_reason == "stop";
    if (row.state == "dropped" || !row.score) continue;
    sum += *row.score;
    ++scored;
  }
  const double n = double(eval_prompts_->rows());
  return {{"eval_reward", scored > 0 ? Json(sum / scored) : Json()},
          {"eval_scored", scored},
          {"eval_completions/mean_length", length / n},
          {"eval_completions/clipped_ratio", 1 - stopped / n},
          {"timing_s/eval", watch.Lap()}};
}

/// Puts a mini-batch's forward back where the batch keeps it; its rows are measured then.
void PutBack(const RolloutBatch& part, int first, RolloutBatch* batch) {
  const std::ptrdiff_t at = std::ptrdiff_t(first) * batch->t;
  std::copy(part.logp.begin(), part.logp.end(), batch->logp.begin() + at);
  std::copy(part.entropy.begin(), part.entropy.end(), batch->entropy.begin() + at);
  if (!batch->measured.empty()) std::fill_n(batch->measured.begin() + first, part.n, true);
}

std::vector<Json> Trainer::TrainBatch() {
  Stopwatch whole;
  const std::uint32_t version = state_.version;
  Batch taken;
  ServiceStats stats;
  if (ranks_.root()) {
    taken = service_->NextBatch(state_.step / grpo_.updates() + 1);
    stats = service_->TakeStats();
  }
  ShareBatch(ranks_, &taken);
  Json of_batch = ServingMetrics(taken, stats, grpo_.dynamic_sampling);
  state_.next_group = taken.next_group;
  RolloutBatch batch = MakeBatch(grpo_, taken.groups, Replayed());
  const Preparation preparation = Prepared();
  of_batch["timing_s/old_log_prob"] =
      PrepareBatch(grpo_, *policy_, reference_.get(), preparation, &batch);

  std::vector<Json> lines;
  const int rows = batch.n / grpo_.mini_batches;
  for (int update = 0; update < grpo_.updates(); ++update) {
    const int first = update % grpo_.mini_batches * rows;
    RolloutBatch part;
    RolloutBatch* now = &batch;
    if (grpo_.updates() > 1) now = &(part = Slice(batch, first, rows));
    const BatchGradient gradient = AddBatchGradient(grpo_, *policy_, now, preparation);
    if (update == 0 && now != &batch) PutBack(part, first, &batch);
    Stopwatch watch;
    const UpdateReport report = Optimize(gradient);
    lines.push_back(StepMetrics(model_, gradient, report, state_.step, version));
    lines.back()["timing_s/optimizer"] = watch.Lap();
    if (!ranks_.alone()) lines.back()["timing_s/ranks"] = ranks_.TakeSeconds();
  }
  Stopwatch watch;
  ++state_.version;
  if (!ranks_.root()) return lines;
  Publish();
  of_batch["timing_s/publish"] = watch.Lap();
  of_batch["publish/bytes_changed"] = publisher_.changed();
  if (eval_prompts_ && Due(grpo_.eval_steps)) lines.back().update(Evaluate());
  const double seconds = whole.Lap();
  of_batch["idle_ratio/trainer"] = stats.wait_seconds / seconds;
  Finish(taken, batch, of_batch, version, seconds, &lines);
  return lines;
}

void Trainer::Finish(const Batch& taken, const RolloutBatch& batch, const Json& of_batch,
                     std::uint32_t version, double seconds, std::vector<Json>* lines) {
  std::int64_t tokens = 0;
  std::vector<store::TrainedSample> trained;
  for (int i = 0; i < batch.n; ++i) {
    if (!batch.Live(i)) continue;
    tokens += std::int64_t(batch.group[i]->prompt_ids.size()) + batch.length(i);
    const store::RolloutRow& row = *batch.row[i];
    trained.push_back(
        {row.grp, row.sample, row.attempt, batch.advantages[i], Lag(batch, i, version)});
  }
  const Json measured = BatchMetrics(grpo_, taken.groups, batch, version);
  for (Json& line : *lines) {
    line.update(measured);
    line.update(of_batch);
    line["num_tokens"] = tokens;
    line["perf/throughput"] = double(tokens) / seconds;
    line["timing_s/step"] = seconds;
    store::StepRow row;
    row.step = line["step"].get<std::int64_t>();
    row.version = version;
    row.loss = line["loss"].get<double>();
    row.reward_mean = RewardOf(line);
    row.seconds = seconds / double(lines->size());
    // The rows are trained when the batch is: its last step says so.
    const bool last = &line == &lines->back();
    if (last) {
      service_->CommitStep(row, trained, line, taken.passed_over);
    } else {
      service_->CommitStep(row, {}, line);
    }
  }
}

int Trainer::Run() {
  std::optional<MetricsLog> metrics;
  std::optional<Progress> progress;
  if (ranks_.root()) {
    metrics.emplace(config_.output_dir, state_.step);
    progress.emplace("grpo", "step", grpo_.max_steps, state_.step);
  }
  Publish();
  while (state_.step < grpo_.max_steps) {
    const std::vector<Json> lines = TrainBatch();
    const bool due = Due(grpo_.save_steps);
    if (!ranks_.root()) {
      if (due) Save();
      continue;
    }
    const bool last = state_.step == grpo_.max_steps;
    for (const Json& line : lines) {
      const bool end = last && &line == &lines.back();
      if (end || line["step"].get<std::int64_t>() % grpo_.logging_steps == 0 ||
          line.contains("eval_reward")) {
        metrics->Write(line);
      }
    }
    progress->At(state_.step, NoteOf(lines.back()));
    NoteCheckpoint(due);
    if (due) Save();
  }
  if (ranks_.root()) NoteCheckpoint(/*wait=*/true);
  ranks_.Finish();
  return 0;
}

}  // namespace

int RunGrpo(const configs::Config& config, Communicator& ranks, const std::string& bind,
            const std::vector<std::string>& zygote_argv, const std::string& from) {
  const bool fresh = ranks.root() && !configs::Exists(config.output_dir);
  std::optional<Trainer> trainer;
  try {
    trainer.emplace(config, ranks, bind, zygote_argv, from);
  } catch (...) {
    // A run that never began (a port in use, a bad row) leaves nothing half-written behind.
    std::error_code ignored;
    if (fresh) std::filesystem::remove_all(config.output_dir, ignored);
    throw;
  }
  return trainer->Run();
}

}  // namespace temper::learner
