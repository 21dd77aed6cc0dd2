#include "learner/grpo.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <optional>
#include <string_view>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/sha256.h"
#include "engine/tokenizer.h"
#include "learner/batch_gradient.h"
#include "learner/checkpoint.h"
#include "learner/core/metrics.h"
#include "learner/core/progress.h"
#include "learner/core/prompts.h"
#include "learner/core/run_folder.h"
#include "learner/core/stopwatch.h"
#include "learner/process.h"

namespace temper::learner {

namespace {

class Trainer {
 public:
  Trainer(const configs::Config& config, const std::string& bind,
          const std::vector<std::string>& zygote_argv);
  int Run();

 private:
  void Begin();
  void Save(bool record);
  void Publish();
  Json Step();

  const configs::Config& config_;
  const configs::Grpo& grpo_;
  const engine::ModelConfig model_;
  const engine::Tokenizer tokenizer_;
  std::shared_ptr<const PromptSource> prompts_;
  TrainState state_;
  std::unique_ptr<Policy> policy_, reference_;
  std::optional<std::int64_t> resume_step_;
  std::unique_ptr<Service> service_;
  std::shared_ptr<const WeightSet> served_;
  double changed_ = 1;  // share of its bytes that the former set did not have
};

Trainer::Trainer(const configs::Config& config, const std::string& bind,
                 const std::vector<std::string>& zygote_argv)
    : config_(config),
      grpo_(config.grpo),
      model_(engine::ReadModelConfig(config.model)),
      tokenizer_(config.model) {
  prompts_ = MakePrompts(config, tokenizer_, model_, zygote_argv);
  Service::Options service;
  service.stop_ids = model_.eos_ids;
  if (const std::int32_t eos = tokenizer_.eos_id();
      eos >= 0 && std::count(model_.eos_ids.begin(), model_.eos_ids.end(), eos) == 0) {
    service.stop_ids.push_back(eos);
  }
  if (service.stop_ids.empty())
    throw UserError(config.model + ": neither config.json nor the tokenizer has an EOS token");
  Begin();
  service.config = config;
  service.run_dir = config.output_dir;
  service.bind = bind;
  service.numerics = NumericsId(config);
  service.model_dir = config.model;
  service.valid_ids = std::min(tokenizer_.size(), model_.vocab_size);
  service.prompts = prompts_;
  service.zygote_argv = zygote_argv;
  service.resume_step = resume_step_;
  service.detokenize = [this](std::span<const std::int32_t> ids) {
    return tokenizer_.Decode({ids.begin(), ids.end()}, /*skip_special=*/true);
  };
  service_ = std::make_unique<Service>(std::move(service));
}

void Trainer::Begin() {
  Policy::Options options;
  options.threads = UseThreads(config_.threads);
  options.plain = config_.learner.forward == "libtorch";
  options.numerics = NumericsOf(config_);
  policy_ = std::make_unique<Policy>(model_, options);
  if (config_.resume) {
    const FoundCheckpoint found = FindCheckpoint(config_.output_dir);
    ContinueRun(config_, found.state.config);
    LoadOptimizer(found.dir, policy_->parameters());
    policy_->Load(found.dir, /*masters=*/false);
    state_ = found.state;
    ++state_.incarnation;
    // Killed between its first checkpoint and its database, a run has acknowledged nothing yet.
    if (state_.step > 0 || configs::Exists(config_.output_dir + "/trajectories.db"))
      resume_step_ = state_.step;
  } else {
    policy_->Load(config_.model);
    BeginRun(config_);
  }
  state_.config = configs::ToJson(config_);
  state_.numerics = NumericsId(config_);
  if (grpo_.beta > 0) {
    options.gradients = false;
    reference_ = std::make_unique<Policy>(model_, options);
    reference_->Load(config_.model);
  }
  if (!config_.resume) Save(/*record=*/false);
}

void Trainer::Save(bool record) {
  const std::uint64_t next = std::uint64_t(state_.step) * std::uint64_t(grpo_.groups_per_step);
  const std::uint64_t rows = prompts_->rows();
  state_.epoch = rows == 0 ? 0 : next / rows;
  state_.position = rows == 0 ? next : next % rows;
  const std::string name =
      SaveCheckpoint(config_.output_dir, state_, *policy_, config_.model, grpo_.save_total_limit);
  if (record) service_->SetCheckpoint(state_.step, name);
}

/// The share of bytes that two sets of one layout have different.
double Changed(const std::vector<std::byte>& a, const std::vector<std::byte>& b) {
  std::size_t differ = 0;
  for (std::size_t i = 0; i < a.size(); ++i) differ += a[i] != b[i];
  return double(differ) / double(a.size());
}

void Trainer::Publish() {
  auto set = std::make_shared<WeightSet>();
  set->version = state_.version;
  const Published& published = policy_->published();
  set->bytes.resize(published.size());
  for (const Published::Tensor& tensor : published.tensors()) {
    const std::span<const std::byte> bytes = published.Bytes(tensor);
    std::copy(bytes.begin(), bytes.end(), set->bytes.begin() + std::ptrdiff_t(tensor.begin));
    set->tensors.push_back({tensor.name, engine::DtypeName(tensor.dtype), tensor.shape,
                            tensor.begin, tensor.end, configs::Sha256Hex(bytes)});
  }
  changed_ = served_ ? Changed(served_->bytes, set->bytes) : 1.0;
  served_ = set;
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

Json Trainer::Step() {
  Stopwatch whole, watch;
  const std::int64_t step = state_.step + 1;
  const std::uint32_t version = state_.version;
  const std::vector<ScoredGroup> groups = service_->NextBatch(step);
  const ServiceStats stats = service_->TakeStats();
  RolloutBatch batch = MakeBatch(grpo_, groups);
  const BatchGradient gradient = AddBatchGradient(grpo_, *policy_, reference_.get(), &batch);

  watch.Lap();
  if (!std::isfinite(gradient.loss.loss)) {
    // Clipped to nothing below: a gradient that overflowed must not reach the weights.
    policy_->parameters().gradients()[0] = std::numeric_limits<float>::quiet_NaN();
  }
  const UpdateReport update = Update(*policy_, grpo_, step, gradient.loads);
  if (!update.applied)
    std::fprintf(stderr, "grpo: step %lld skipped: its loss or gradient is not finite\n",
                 static_cast<long long>(step));
  const double optimizer_seconds = watch.Lap();
  state_.step = step;
  ++state_.version;
  Publish();
  const double publish_seconds = watch.Lap();

  Json line = {{"step", step}, {"version", version}, {"loss", gradient.loss.loss}};
  line.update(gradient.loss.metrics);
  line.update(BatchMetrics(grpo_, groups, batch, version));
  line["grad_norm"] = update.gradient_norm;
  line["learning_rate"] = update.learning_rate;
  if (gradient.mtp_loss != 0) line["mtp_loss"] = gradient.mtp_loss;
  if (!gradient.loads.layers().empty()) line["moe/max_vio"] = gradient.loads.MaxViolation();
  for (const auto& [status, count] : stats.reward_failures)
    line["reward_failures/" + status] = count;

  std::int64_t tokens = 0;
  std::vector<store::TrainedSample> trained;
  for (int i = 0; i < batch.n; ++i) {
    if (!batch.Live(i)) continue;
    tokens += std::int64_t(batch.group[i]->prompt_ids.size()) + batch.length(i);
    const store::RolloutRow& row = *batch.row[i];
    trained.push_back(
        {row.grp, row.sample, row.attempt, batch.advantages[i], Lag(batch, i, version)});
  }
  const double seconds = whole.Lap();
  line["num_tokens"] = tokens;
  line["perf/throughput"] = double(tokens) / seconds;
  line["idle_ratio/trainer"] = stats.wait_seconds / seconds;
  line["timing_s/gen"] = stats.wait_seconds;
  line["timing_s/reward"] = stats.reward_seconds;
  line["timing_s/forward"] = gradient.forward_seconds;
  line["timing_s/backward"] = gradient.backward_seconds;
  line["timing_s/optimizer"] = optimizer_seconds;
  line["timing_s/publish"] = publish_seconds;
  line["publish/bytes_changed"] = changed_;
  line["timing_s/step"] = seconds;
  store::StepRow row;
  row.step = step;
  row.version = version;
  row.loss = gradient.loss.loss;
  row.reward_mean = RewardOf(line);
  row.seconds = seconds;
  service_->CommitStep(row, trained, line);
  return line;
}

int Trainer::Run() {
  MetricsLog metrics(config_.output_dir, state_.step);
  Progress progress("grpo", "step", grpo_.max_steps, state_.step);
  Publish();
  while (state_.step < grpo_.max_steps) {
    const Json line = Step();
    const bool last = state_.step == grpo_.max_steps;
    if (last || state_.step % grpo_.logging_steps == 0) metrics.Write(line);
    progress.At(state_.step, NoteOf(line));
    if (last || (grpo_.save_steps > 0 && state_.step % grpo_.save_steps == 0))
      Save(/*record=*/true);
  }
  return 0;
}

}  // namespace

int RunGrpo(const configs::Config& config, const std::string& bind,
            const std::vector<std::string>& zygote_argv) {
  const bool fresh = !configs::Exists(config.output_dir);
  std::optional<Trainer> trainer;
  try {
    trainer.emplace(config, bind, zygote_argv);
  } catch (...) {
    // A run that never began (a port in use, a bad row) leaves nothing half-written behind.
    std::error_code ignored;
    if (fresh) std::filesystem::remove_all(config.output_dir, ignored);
    throw;
  }
  return trainer->Run();
}

}  // namespace temper::learner
