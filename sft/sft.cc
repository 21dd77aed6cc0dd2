#include "sft/sft.h"

#include <torch/torch.h>

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
#include "learner/mtp_loss.h"
#include "learner/policy.h"
#include "learner/process.h"
#include "learner/update.h"
#include "sft/dataset.h"

namespace temper::sft {

namespace {

using learner::Pack;
using learner::Policy;
using learner::Stopwatch;
using learner::Targets;

struct MicroBatch {
  std::shared_ptr<Pack> pack = std::make_shared<Pack>();
  Targets targets;
};

/// Sums over a step or an evaluation, and the denominators of the whole step.
struct Totals {
  learner::MtpLoss mtp;
  std::int64_t tokens = 0;   // all, padding-free
  std::int64_t trained = 0;  // targets
  double loss = 0;           // sum of -log p
  std::int64_t correct = 0;
  double forward = 0, backward = 0;  // seconds
};

class Trainer {
 public:
  explicit Trainer(const configs::Config& config);
  int Run();

 private:
  void Resume();
  void Save();
  std::vector<MicroBatch> Batch(const std::vector<Example>& rows,
                                const std::vector<std::int64_t>& taken,
                                std::int64_t capacity) const;
  void AddRow(const Example& row, MicroBatch* batch) const;
  /// Tokens of a micro-batch.
  std::int64_t Capacity() const {
    const std::int64_t parts = sft_.gradient_accumulation_steps;
    return (sft_.tokens_per_step + parts - 1) / parts;
  }
  static void Count(const std::vector<MicroBatch>& batches, Totals* totals);
  void Micro(const MicroBatch& batch, bool train, Totals* totals, learner::ExpertLoads* loads);
  Json Step();
  Json Evaluate();

  const configs::Config& config_;
  const configs::Sft& sft_;
  const engine::ModelConfig model_;
  const engine::Tokenizer tokenizer_;
  std::vector<Example> rows_, eval_rows_;
  learner::TrainState state_;
  std::unique_ptr<Policy> policy_;
  std::optional<Cursor> cursor_;
  learner::SkippedSteps skipped_{"sft"};
};

Trainer::Trainer(const configs::Config& config)
    : config_(config),
      sft_(config.sft),
      model_(engine::ReadModelConfig(config.model)),
      tokenizer_(config.model) {
  if (sft_.eval_steps > 0 && config.data.eval.empty())
    throw UserError("sft.eval_steps: " + std::to_string(sft_.eval_steps) +
                    "; data.eval names no file to evaluate on: set it, or eval_steps to 0");
  rows_ = LoadExamples(config.data.train, config, tokenizer_, model_);
  if (!config.data.eval.empty() && sft_.eval_steps > 0) {
    eval_rows_ = LoadExamples(config.data.eval, config, tokenizer_, model_);
  }
  Policy::Options options;
  options.threads = learner::UseThreads(config.threads);
  options.plain = config.learner.forward == "libtorch";
  options.recompute = config.learner.gradient_checkpointing;
  options.numerics = learner::NumericsOf(config);
  policy_ = std::make_unique<Policy>(model_, options);
  if (config.resume) {
    Resume();
  } else {
    policy_->Load(config.model);
    learner::BeginRun(config);
  }
  state_.config = configs::ToJson(config);
  state_.numerics = learner::NumericsId(config);
  cursor_.emplace(std::int64_t(rows_.size()), config.data.shuffle, config.seed, state_.epoch,
                  state_.position);
  if (!config.resume) Save();  // a run killed in its first steps resumes from here
}

void Trainer::Resume() {
  const learner::FoundCheckpoint found = learner::FindCheckpoint(config_.output_dir);
  learner::ContinueRun(config_, found.state.config);
  learner::LoadOptimizer(found.dir, policy_->parameters());
  policy_->Load(found.dir, /*masters=*/false);
  state_ = found.state;
  ++state_.incarnation;
}

void Trainer::Save() {
  state_.epoch = cursor_->epoch();
  state_.position = cursor_->position();
  learner::SaveCheckpoint(config_.output_dir, state_, *policy_, config_.model,
                          sft_.save_total_limit);
}

void Trainer::AddRow(const Example& row, MicroBatch* batch) const {
  const std::int32_t first = batch->pack->tokens();
  batch->pack->Add(row.ids);
  for (const std::int32_t t : TrainedTokens(row, sft_)) {
    batch->targets.row.push_back(first + t - 1);
    batch->targets.target.push_back(row.ids[t]);
  }
}

std::vector<MicroBatch> Trainer::Batch(const std::vector<Example>& rows,
                                       const std::vector<std::int64_t>& taken,
                                       std::int64_t capacity) const {
  std::vector<std::int64_t> lengths;
  for (const std::int64_t row : taken) lengths.push_back(std::int64_t(rows[row].ids.size()));
  // Without packing every row is a forward of its own; the gradient is the same.
  std::vector<MicroBatch> batches;
  for (const std::vector<std::int64_t>& pack : BestFit(lengths, sft_.packing ? capacity : 0)) {
    batches.emplace_back();
    for (const std::int64_t i : pack) AddRow(rows[taken[i]], &batches.back());
  }
  return batches;
}

void Trainer::Count(const std::vector<MicroBatch>& batches, Totals* totals) {
  for (const MicroBatch& batch : batches) {
    totals->tokens += batch.pack->tokens();
    totals->trained += batch.targets.count();
    totals->mtp.Count(*batch.pack, batch.targets);
  }
}

void Trainer::Micro(const MicroBatch& batch, bool train, Totals* totals,
                    learner::ExpertLoads* loads) {
  Stopwatch watch;
  Policy::Request request;
  request.gradients = train;
  request.entropy = false;
  request.mtp = train && totals->mtp.wanted();
  const Policy::Result result = policy_->Forward(batch.pack, batch.targets, request);
  for (std::int64_t i = 0; i < result.logp.numel(); ++i)
    totals->loss -= result.logp.data_ptr<float>()[i];
  totals->correct += result.correct;
  if (loads) loads->Add(*batch.pack, result);
  totals->forward += watch.Lap();
  if (!train) return;
  // d loss / d logp is one number: the step's denominators are known before its first micro-batch.
  learner::Tensors from{result.logp},
      gradient{torch::full_like(result.logp, -1.0 / double(totals->trained))};
  totals->mtp.Add(result, &from, &gradient);
  torch::autograd::backward(from, gradient);
  totals->backward += watch.Lap();
}

Json Trainer::Step() {
  Stopwatch step, watch;
  const std::vector<MicroBatch> batches =
      Batch(rows_, cursor_->Take(rows_, sft_.tokens_per_step), Capacity());
  Totals totals{{model_, sft_.mtp_loss_scale}};
  Count(batches, &totals);
  learner::ExpertLoads loads;
  if (totals.trained == 0)
    throw UserError(config_.data.train + ": a step has no trained token; rows need completions");
  for (const MicroBatch& batch : batches) Micro(batch, /*train=*/true, &totals, &loads);
  watch.Lap();
  const learner::UpdateReport update = learner::Update(*policy_, sft_, ++state_.step, loads);
  const double optimizer = watch.Lap(), seconds = step.Lap();
  skipped_.Note(update, state_.step);
  Json line = {{"step", state_.step},
               {"version", state_.version},
               {"loss", totals.loss / double(totals.trained)},
               {"grad_norm", update.gradient_norm},
               {"learning_rate", update.learning_rate},
               {"mean_token_accuracy", double(totals.correct) / double(totals.trained)},
               {"num_tokens", totals.tokens},
               {"trained_tokens", totals.trained},
               {"epoch", cursor_->epoch()}};
  if (totals.mtp.mean() != 0) line["mtp_loss"] = totals.mtp.mean();
  line.update(loads.Metrics(model_));
  line["step_time"] = seconds;
  line["perf/throughput"] = double(totals.tokens) / seconds;
  line["timing_s/forward"] = totals.forward;
  line["timing_s/backward"] = totals.backward;
  line["timing_s/optimizer"] = optimizer;
  return line;
}

Json Trainer::Evaluate() {
  std::vector<std::int64_t> all(eval_rows_.size());
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = std::int64_t(i);
  Totals totals{{model_, 0}};
  const std::vector<MicroBatch> batches = Batch(eval_rows_, all, Capacity());
  Count(batches, &totals);
  if (totals.trained == 0)
    throw UserError(config_.data.eval + ": no trained token; rows need completions");
  for (const MicroBatch& batch : batches) Micro(batch, /*train=*/false, &totals, nullptr);
  return {{"eval_loss", totals.loss / double(totals.trained)},
          {"eval_mean_token_accuracy", double(totals.correct) / double(totals.trained)}};
}

int Trainer::Run() {
  learner::MetricsLog metrics(config_.output_dir, state_.step);
  learner::Progress progress("sft", "step", sft_.max_steps, state_.step);
  while (state_.step < sft_.max_steps) {
    Json line = Step();
    const std::int64_t step = state_.step;
    const bool last = step == sft_.max_steps;
    if (!eval_rows_.empty() && (last || step % sft_.eval_steps == 0)) line.update(Evaluate());
    if (last || step % sft_.logging_steps == 0 || line.contains("eval_loss")) metrics.Write(line);
    char note[64];
    std::snprintf(note, sizeof note, "loss %.4f", line["loss"].get<double>());
    progress.At(step, note);
    if (last || (sft_.save_steps > 0 && step % sft_.save_steps == 0)) Save();
  }
  return 0;
}

}  // namespace

int RunSft(const configs::Config& config) {
  const bool fresh = !configs::Exists(config.output_dir);
  std::optional<Trainer> trainer;
  try {
    trainer.emplace(config);
  } catch (...) {
    // A run that never began (a bad row, a full disk) leaves nothing half-written behind.
    std::error_code ignored;
    if (fresh) std::filesystem::remove_all(config.output_dir, ignored);
    throw;
  }
  return trainer->Run();
}

}  // namespace temper::sft
