#include "sft/sft.h"

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "configs/error.h"
#include "configs/files.h"
#include "engine/tokenizer.h"
#include "learner/checkpoint.h"
#include "learner/core/metrics.h"
#include "learner/core/progress.h"
#include "learner/core/run_folder.h"
#include "learner/core/stopwatch.h"
#include "learner/policy.h"
#include "learner/process.h"
#include "learner/shared_batch.h"
#include "sft/dataset.h"
#include "sft/objective.h"

namespace temper::sft {

namespace {

using learner::Policy;
using learner::Stopwatch;

class Trainer {
 public:
  Trainer(const configs::Config& config, learner::Communicator& ranks);
  int Run();

 private:
  void Resume();
  void Save();
  Json Step();

  const configs::Config& config_;
  learner::Communicator& ranks_;
  const configs::Sft& sft_;
  const engine::ModelConfig base_;   // of config.model
  const engine::ModelConfig model_;  // that is trained
  const engine::Tokenizer tokenizer_;
  learner::TrainState state_;
  std::unique_ptr<Policy> policy_;
  std::unique_ptr<Objective> objective_;
  std::optional<Cursor> cursor_;
  learner::CheckpointSaver saver_;
  learner::SkippedSteps skipped_{"sft"};
};

/// What `config` trains from the model `base`: a reward model may begin as a language model.
engine::ModelConfig TrainedModel(const configs::Config& config, const engine::ModelConfig& base) {
  if (config.sft.loss_type == "pairwise" && !base.scalar_head) return engine::AsRewardModel(base);
  if (config.sft.loss_type != "pairwise" && base.scalar_head)
    throw UserError(config.model +
                    ": a reward model has no next tokens; set sft.loss_type to \"pairwise\"");
  return base;
}

Trainer::Trainer(const configs::Config& config, learner::Communicator& ranks)
    : config_(config),
      ranks_(ranks),
      sft_(config.sft),
      base_(engine::ReadAnyModelConfig(config.model)),
      model_(TrainedModel(config, base_)),
      tokenizer_(config.model),
      saver_(config.output_dir, sft_.save_total_limit) {
  Policy::Options options;
  options.threads = learner::UseThreads(config.threads);
  options.plain = config.learner.forward == "libtorch";
  options.recompute = config.learner.gradient_checkpointing;
  options.numerics = learner::NumericsOf(config);
  options.lora = config.lora;
  options.shard = ranks.shard();
  options.device = ranks.device();
  policy_ = std::make_unique<Policy>(model_, options);
  objective_ = (sft_.loss_type == "pairwise" ? MakePreferences : MakeNextTokens)(config, tokenizer_,
                                                                                 *policy_, ranks);
  if (config.resume) {
    Resume();
  } else {
    policy_->Begin(config.model, base_, config.seed);
    if (policy_->lora()) policy_->BeginAdapters(config.seed);
    if (ranks.root()) learner::BeginRun(config);
  }
  state_.config = configs::ToJson(config);
  state_.numerics = learner::NumericsId(config);
  cursor_.emplace(std::int64_t(objective_->lengths().size()), config.data.shuffle, config.seed,
                  state_.epoch, state_.position);
  if (config.resume) return;
  Save();  // a run killed in its first steps resumes from here
  saver_.Take(/*wait=*/true);
  ranks.FollowRoot();  // a large model is written for longer than rank_timeout_s
}

void Trainer::Resume() {
  learner::FoundCheckpoint found;
  if (ranks_.root()) {
    found = learner::FindCheckpoint(config_.output_dir);
    learner::ContinueRun(config_, found.state.config);
  }
  learner::ShareCheckpoint(ranks_, &found);
  learner::Restore(found.dir, config_.model, *policy_);
  state_ = found.state;
  ++state_.incarnation;
}

void Trainer::Save() {
  state_.epoch = cursor_->epoch();
  state_.position = cursor_->position();
  saver_.Take(/*wait=*/true);
  auto snapshot =
      std::make_shared<const learner::Snapshot>(*policy_, config_.model, nullptr, &ranks_);
  if (ranks_.root()) saver_.Save(state_, std::move(snapshot));
}

Json Trainer::Step() {
  Stopwatch step, watch;
  const StepReport report =
      objective_->Train(cursor_->Take(objective_->lengths(), sft_.tokens_per_step));
  policy_->CollectGradients();
  watch.Lap();
  const learner::UpdateReport update =
      learner::Update(*policy_, sft_, ++state_.step, report.loads, report.loss, &ranks_);
  const double optimizer = watch.Lap(), seconds = step.Lap();
  if (ranks_.root()) skipped_.Note(update, state_.step);
  Json line = {{"step", state_.step},
               {"version", state_.version},
               {"loss", report.loss},
               {"grad_norm", update.gradient_norm},
               {"learning_rate", update.learning_rate},
               {"num_tokens", report.tokens},
               {"epoch", cursor_->epoch()}};
  line.update(report.metrics);
  line.update(report.loads.Metrics(model_));
  line["step_time"] = seconds;
  line["perf/throughput"] = double(report.tokens) / seconds;
  line["timing_s/forward"] = report.forward;
  line["timing_s/backward"] = report.backward;
  line["timing_s/optimizer"] = optimizer;
  if (!ranks_.alone()) line["timing_s/ranks"] = ranks_.TakeSeconds();
  return line;
}

int Trainer::Run() {
  std::optional<learner::MetricsLog> metrics;
  std::optional<learner::Progress> progress;
  if (ranks_.root()) {
    metrics.emplace(config_.output_dir, state_.step);
    progress.emplace("sft", "step", sft_.max_steps, state_.step);
  }
  while (state_.step < sft_.max_steps) {
    Json line = Step();
    const std::int64_t step = state_.step;
    const bool last = step == sft_.max_steps;
    if (sft_.eval_steps > 0 && (last || step % sft_.eval_steps == 0))
      line.update(objective_->Evaluate());
    const bool told = last || step % sft_.logging_steps == 0 || line.contains("eval_loss");
    if (metrics && told) metrics->Write(line);
    char note[64];
    std::snprintf(note, sizeof note, "loss %.4f", line["loss"].get<double>());
    if (progress) progress->At(step, note);
    saver_.Take(/*wait=*/false);
    if (last || (sft_.save_steps > 0 && step % sft_.save_steps == 0)) Save();
  }
  saver_.Take(/*wait=*/true);
  ranks_.Finish();
  return 0;
}

}  // namespace

int RunSft(const configs::Config& config, learner::Communicator& ranks) {
  const bool fresh = ranks.root() && !configs::Exists(config.output_dir);
  std::optional<Trainer> trainer;
  try {
    trainer.emplace(config, ranks);
  } catch (...) {
    // A run that never began (a bad row, a full disk) leaves nothing half-written behind.
    std::error_code ignored;
    if (fresh) std::filesystem::remove_all(config.output_dir, ignored);
    throw;
  }
  return trainer->Run();
}

}  // namespace temper::sft
