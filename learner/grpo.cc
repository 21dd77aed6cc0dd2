#include "learner/grpo.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/sha256.h"
#include "engine/canary.h"
#include "engine/stop_ids.h"
#include "engine/tokenizer.h"
#include "learner/batch_gradient.h"
#include "learner/checkpoint.h"
#include "learner/core/gradients.h"
#include "learner/core/metrics.h"
#include "learner/core/progress.h"
#include "learner/core/prompts.h"
#include "learner/core/run_folder.h"
#include "learner/core/stopwatch.h"
#include "learner/core/stored_batches.h"
#include "learner/mtp_loss.h"
#include "learner/process.h"

namespace temper::learner {

namespace {

class Trainer {
 public:
  Trainer(const configs::Config& config, const std::string& bind,
          const std::vector<std::string>& zygote_argv, const std::string& from);
  int Run();

 private:
  void Begin();
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
  UpdateReport Optimize(const BatchGradient& gradient);
  void SyncReference();
  Json Evaluate();
  /// Completes the lines with what is known of the whole batch, and commits its steps.
  void Finish(const Batch& taken, const RolloutBatch& batch, const Json& of_batch,
              std::uint32_t version, double seconds, std::vector<Json>* lines);

  const configs::Config& config_;
  const configs::Grpo& grpo_;
  const engine::ModelConfig model_;
  const engine::Tokenizer tokenizer_;
  std::shared_ptr<const PromptSource> prompts_, eval_prompts_;
  TrainState state_;
  std::unique_ptr<Policy> policy_, reference_;
  std::optional<std::int64_t> resume_step_;
  std::unique_ptr<Batches> service_;
  std::shared_ptr<WeightSet> served_, spare_;
  std::optional<CheckpointSaver> saver_;
  SkippedSteps skipped_{"grpo"};
  double changed_ = 1;  // share of its bytes that the former set did not have
};

Trainer::Trainer(const configs::Config& config, const std::string& bind,
                 const std::vector<std::string>& zygote_argv, const std::string& from)
    : config_(config),
      grpo_(config.grpo),
      model_(engine::ReadModelConfig(config.model)),
      tokenizer_(config.model) {
  prompts_ = MakePrompts(config, tokenizer_, model_, zygote_argv);
  if (grpo_.eval_steps > 0) {
    configs::Config eval = config;
    eval.data.task.clear();
    eval.data.train = config.data.eval;
    eval.data.shuffle = false;
    eval_prompts_ = MakePrompts(eval, tokenizer_, model_, zygote_argv);
  }
  Service::Options service;
  service.stop_ids = engine::StopIds(model_, tokenizer_);
  if (service.stop_ids.empty())
    throw UserError(config.model + ": neither config.json nor the tokenizer has an EOS token");
  if (config.resume) CheckFrom(config.output_dir, from);
  Begin();
  const int valid_ids = std::min(tokenizer_.size(), model_.vocab_size);
  if (!from.empty()) {
    service_ = std::make_unique<StoredBatches>(
        StoredBatches::Options{config, from, NumericsId(config), valid_ids, resume_step_});
    return;
  }
  service.config = config;
  service.run_dir = config.output_dir;
  service.bind = bind;
  service.numerics = NumericsId(config);
  service.model_dir = config.model;
  service.valid_ids = valid_ids;
  service.prompts = prompts_;
  if (grpo_.routing_replay == "rollout")
    service.experts = {model_.moe_layers(), model_.top_k, model_.experts};
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
  policy_ = std::make_unique<Policy>(model_, options);
  std::string resumed_from;
  if (config_.resume) {
    const FoundCheckpoint found = FindCheckpoint(config_.output_dir);
    ContinueRun(config_, found.state.config);
    Restore(found.dir, config_.model, *policy_);
    resumed_from = found.dir;
    state_ = found.state;
    ++state_.incarnation;
    // Killed between its first checkpoint and its database, a run has acknowledged nothing yet.
    if (state_.step > 0 || configs::Exists(config_.output_dir + "/trajectories.db"))
      resume_step_ = state_.step;
  } else {
    policy_->Load(config_.model);
    if (policy_->lora()) policy_->BeginAdapters(config_.seed);
    BeginRun(config_);
  }
  state_.config = configs::ToJson(config_);
  state_.numerics = NumericsId(config_);
  if (grpo_.beta > 0) {
    options.gradients = false;
    reference_ = std::make_unique<Policy>(model_, options);
    if (config_.resume && grpo_.sync_ref_model) {
      LoadReference(resumed_from, reference_->parameters());
      reference_->Refresh();
    } else {
      reference_->Load(config_.model);
    }
  }
  saver_.emplace(config_.output_dir, grpo_.save_total_limit);
  if (config_.resume) return;
  Save();  // a run killed in its first steps resumes from here
  saver_->Take(/*wait=*/true);
}

void Trainer::NoteCheckpoint(bool wait) {
  if (const auto saved = saver_->Take(wait)) service_->SetCheckpoint(saved->step, saved->name);
}

void Trainer::Save() {
  const std::uint64_t rows = prompts_->rows(), next = state_.next_group;
  state_.epoch = rows == 0 ? 0 : next / rows;
  state_.position = rows == 0 ? next : next % rows;
  saver_->Save(state_, std::make_shared<const Snapshot>(
                           *policy_, config_.model,
                           grpo_.sync_ref_model ? &reference_->parameters() : nullptr));
}

/// Bytes that are equal.
std::uint64_t Same(const std::byte* a, const std::byte* b, std::size_t n) {
  std::uint64_t same = 0;
  for (std::size_t begin = 0; begin < n; begin += 255) {
    std::uint8_t some = 0;  // counts fit the lanes of a vector
    for (std::size_t i = begin; i < std::min(begin + 255, n); ++i) some += a[i] == b[i];
    same += some;
  }
  return same;
}

void Trainer::Publish() {
  // The set before the last one, once nobody reads it: fresh memory would cost more than the copy.
  std::shared_ptr<WeightSet> set = std::exchange(spare_, nullptr);
  if (!set || set.use_count() > 1) set = std::make_shared<WeightSet>();
  std::atomic_thread_fence(std::memory_order_acquire);  // behind the last reader's release
  set->version = state_.version;
  const Published& published = policy_->published();
  set->bytes.resize(published.size());
  set->tensors.resize(published.tensors().size());
  std::vector<std::uint64_t> changed(set->tensors.size());
  ForRows(
      policy_->pool(), std::int64_t(changed.size()), 8, [&](std::int64_t begin, std::int64_t end) {
        std::vector<std::span<const std::byte>> texts;
        for (std::int64_t i = begin; i < end; ++i) {
          const Published::Tensor& tensor = published.tensors()[std::size_t(i)];
          const std::span<const std::byte> bytes = published.Bytes(tensor);
          std::memcpy(set->bytes.data() + tensor.begin, bytes.data(), bytes.size());
          changed[std::size_t(i)] = bytes.size();
          if (served_) {
            changed[std::size_t(i)] -=
                Same(bytes.data(), served_->bytes.data() + tensor.begin, bytes.size());
          }
          texts.push_back(bytes);
        }
        std::vector<std::string> hashes = configs::Sha256Hex(texts);
        for (std::int64_t i = begin; i < end; ++i) {
          const Published::Tensor& tensor = published.tensors()[std::size_t(i)];
          set->tensors[std::size_t(i)] = {tensor.name,  engine::DtypeName(tensor.dtype),
                                          tensor.shape, tensor.begin,
                                          tensor.end,   std::move(hashes[std::size_t(i - begin)])};
        }
      });
  changed_ = double(std::accumulate(changed.begin(), changed.end(), std::uint64_t{0})) /
             double(published.size());
  set->canary = engine::Canary(policy_->weights(), tokenizer_.size(), policy_->pool());
  spare_ = std::exchange(served_, set);
  service_->Publish(std::move(set));
  if (config_.keep_versions != "checkpoints") {
    SaveVersion(config_.output_dir, state_.version, published);
    PruneVersions(config_.output_dir, config_.keep_versions, state_.version);
  }
}

/// NaN where no sample of the step has a score.
double RewardOf(const Json& line) {
  const Json reward = line.value("reward", Json());
  return reward.is_number() ? reward.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

/// For the progress line: what failed in the step stands behind the reward.
std::string NoteOf(const Json& line) {
  char note[96];
  std::snprintf(note, sizeof note, "reward %.3f, loss %.4f", RewardOf(line),
                line["loss"].get<double>());
  std::string text = note;
  constexpr std::string_view kFailures = "reward_failures/";
  for (const auto& [key, value] : line.items()) {
    if (key.rfind(kFailures, 0) != 0) continue;
    text += ", " + value.dump() + " " + key.substr(kFailures.size());
  }
  return text;
}

Preparation Trainer::Prepared() const {
  Preparation preparation;
  preparation.version = state_.version;
  preparation.same_bits = config_.numerics == "strict" && config_.learner.forward == "kernels";
  return preparation;
}

UpdateReport Trainer::Optimize(const BatchGradient& gradient) {
  const UpdateReport update =
      Update(*policy_, grpo_, ++state_.step, gradient.loads, gradient.loss.loss);
  skipped_.Note(update, state_.step);
  if (grpo_.sync_ref_model && state_.step % grpo_.ref_model_sync_steps == 0) SyncReference();
  return update;
}

void Trainer::SyncReference() {
  const float alpha = float(grpo_.ref_model_mixup_alpha);
  float* to = reference_->parameters().values();
  const float* from = policy_->parameters().values();
  for (std::int64_t i = 0; i < policy_->parameters().size(); ++i)
    to[i] = (1 - alpha) * to[i] + alpha * from[i];
  reference_->Refresh();
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

/// What one optimizer step adds to its line.
Json StepMetrics(const engine::ModelConfig& config, const BatchGradient& gradient,
                 const UpdateReport& update, std::int64_t step, std::uint32_t version) {
  Json line = {{"step", step}, {"version", version}, {"loss", gradient.loss.loss}};
  for (const auto& [name, value] : gradient.loss.metrics.items()) {
    // Of all tokens, older versions' too: how far the policy has moved since they were sampled. The
    // mismatch proper, of the learner's own version, is the batch's.
    const bool moved = name.starts_with("mismatch/");
    line[moved ? "off_policy/" + name.substr(9) : name] = value;
  }
  line["grad_norm"] = update.gradient_norm;
  line["learning_rate"] = update.learning_rate;
  if (gradient.mtp_loss != 0) line["mtp_loss"] = gradient.mtp_loss;
  AddAcceptance(gradient.mtp_acceptance, &line);
  if (gradient.balance_loss != 0) line["balance_loss"] = gradient.balance_loss;
  line.update(gradient.loads.Metrics(config));
  line["timing_s/forward"] = gradient.forward_seconds;
  line["timing_s/backward"] = gradient.backward_seconds;
  return line;
}

/// What all steps of a batch share.
Json ServingMetrics(const Batch& taken, const ServiceStats& stats, bool dynamic) {
  Json line = Json::object();
  for (const auto& [status, count] : stats.reward_failures)
    line["reward_failures/" + status] = count;
  if (dynamic) {
    line["dynamic_sampling/groups"] = taken.groups.size() + taken.passed_over.size();
    line["dynamic_sampling/passed_over"] = taken.passed_over.size();
  }
  std::uint64_t refused = 0;
  for (const auto& [reason, count] : stats.refused) refused += count;
  line["wire/refused"] = refused;
  line["wire/weights_bytes"] = stats.published_bytes;
  line["timing_s/gen"] = stats.wait_seconds;
  line["timing_s/weights"] = stats.weights_seconds;
  line["timing_s/reward"] = stats.reward_seconds;
  line["timing_s/reward_wait"] = stats.reward_wait_seconds;
  return line;
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
  const Batch taken = service_->NextBatch(state_.step / grpo_.updates() + 1);
  const ServiceStats stats = service_->TakeStats();
  Json of_batch = ServingMetrics(taken, stats, grpo_.dynamic_sampling);
  state_.next_group = taken.next_group;
  RolloutBatch batch = MakeBatch(grpo_, taken.groups);
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
  }
  Stopwatch watch;
  ++state_.version;
  Publish();
  of_batch["timing_s/publish"] = watch.Lap();
  of_batch["publish/bytes_changed"] = changed_;
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
  MetricsLog metrics(config_.output_dir, state_.step);
  Progress progress("grpo", "step", grpo_.max_steps, state_.step);
  Publish();
  while (state_.step < grpo_.max_steps) {
    const std::vector<Json> lines = TrainBatch();
    const bool last = state_.step == grpo_.max_steps;
    for (const Json& line : lines) {
      const bool end = last && &line == &lines.back();
      if (end || line["step"].get<std::int64_t>() % grpo_.logging_steps == 0 ||
          line.contains("eval_reward")) {
        metrics.Write(line);
      }
    }
    progress.At(state_.step, NoteOf(lines.back()));
    const bool due = Due(grpo_.save_steps);
    NoteCheckpoint(due);
    if (due) Save();
  }
  NoteCheckpoint(/*wait=*/true);
  return 0;
}

}  // namespace

int RunGrpo(const configs::Config& config, const std::string& bind,
            const std::vector<std::string>& zygote_argv, const std::string& from) {
  const bool fresh = !configs::Exists(config.output_dir);
  std::optional<Trainer> trainer;
  try {
    trainer.emplace(config, bind, zygote_argv, from);
  } catch (...) {
    // A run that never began (a port in use, a bad row) leaves nothing half-written behind.
    std::error_code ignored;
    if (fresh) std::filesystem::remove_all(config.output_dir, ignored);
    throw;
  }
  return trainer->Run();
}

}  // namespace temper::learner
