#include "cli/evaluate.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>

#include "configs/error.h"
#include "learner/core/progress.h"
#include "reward/task.h"

namespace temper::cli {
namespace {

using Clock = std::chrono::steady_clock;

/// Mean of what was added; null of nothing.
struct Mean {
  double sum = 0;
  std::int64_t count = 0;
  void Add(double x) {
    sum += x;
    ++count;
  }
  Json Value() const { return count > 0 ? Json(sum / static_cast<double>(count)) : Json(nullptr); }
};

class Evaluation {
 public:
  Evaluation(const EvalOptions& options, std::vector<engine::Row> rows,
             std::vector<std::vector<std::int32_t>> prompts)
      : options_(options), rows_(std::move(rows)), prompts_(std::move(prompts)) {
    if (options.show_progress) {
      progress_.emplace("eval", "sample", std::int64_t(prompts_.size()) * options.sampling.n);
    }
    if (options.samples_path.empty()) return;
    lines_.open(options.samples_path, std::ios::binary | std::ios::trunc);
    if (!lines_) {
      throw UserError(options.samples_path + ": " + std::strerror(errno) + "; cannot be written");
    }
  }

  const std::vector<std::vector<std::int32_t>>& prompts() const { return prompts_; }

  void Add(Completion completion, reward::RewardHost* host) {
    group_.push_back(std::move(completion));
    if (int(group_.size()) < options_.sampling.n) return;
    const auto began = Clock::now();
    Score(host);
    group_.clear();
    scoring_seconds_ += std::chrono::duration<double>(Clock::now() - began).count();
  }

  Json Summary(double seconds) {
    if (lines_.is_open() && !lines_.flush()) {
      throw MachineError(options_.samples_path + ": " + std::strerror(errno));
    }
    const std::string n = std::to_string(options_.sampling.n);
    Json summary = {{"summary", true}, {"prompts", prompts_.size()}, {"n", options_.sampling.n}};
    summary["mean@" + n] = mean_.Value();
    summary["pass@1"] = pass_one_.Value();
    summary["pass@" + n] = pass_all_.Value();
    summary["parts"] = Json::object();
    for (const auto& [name, part] : parts_) summary["parts"][name] = part.Value();
    summary["statuses"] = statuses_;
    summary["completion_tokens_mean"] = tokens_.Value();
    const double generating = seconds - scoring_seconds_;
    summary["tok_s"] = generating > 0 ? Json(tokens_.sum / generating) : Json(nullptr);
    return summary;
  }

 private:
  void Score(reward::RewardHost* host) {
    const engine::Row& row = rows_[group_[0].prompt];
    std::vector<reward::SampleInput> inputs;
    for (const Completion& completion : group_) {
      reward::SampleInput& input = inputs.emplace_back();
      input.prompt_json = engine::PromptJson(row).dump();
      input.completion = completion.text;
      input.completion_ids = completion.sample.ids;
      if (row.has_answer) input.answer = row.answer;
      input.row_json = row.json.dump();
      input.finish_reason = engine::FinishReasonName(completion.sample.finish);
    }
    const std::vector<reward::ScoreResult> results = host->ScoreGroup(inputs);
    int scored = 0, right = 0;
    Mean mean;
    for (std::size_t i = 0; i < results.size(); ++i) {
      const reward::ScoreResult& result = results[i];
      statuses_[result.status] = statuses_.value(result.status, 0) + 1;
      tokens_.Add(double(group_[i].sample.ids.size()));
      if (result.score) {
        ++scored;
        right += *result.score >= options_.threshold;
        mean.Add(*result.score);
      }
      for (const auto& [name, value] : Parts(result)) {
        if (value) parts_[name].Add(*value);
      }
      if (lines_.is_open()) Line(group_[i], result);
      ++done_;
      if (progress_) progress_->At(done_);
    }
    if (scored == 0) return;
    mean_.Add(mean.sum / scored);
    pass_one_.Add(PassAtK(scored, right, 1));
    if (scored == options_.sampling.n) pass_all_.Add(right > 0 ? 1 : 0);
  }

  /// The other numbers of the function's table, under its own names for them.
  std::map<std::string, std::optional<double>> Parts(const reward::ScoreResult& result) const {
    const std::string prefix = options_.reward.name + "/";
    std::map<std::string, std::optional<double>> parts;
    for (const reward::ScorePart& part : result.parts) {
      if (part.name.rfind(prefix, 0) == 0) parts[part.name.substr(prefix.size())] = part.value;
    }
    return parts;
  }

  void Line(const Completion& completion, const reward::ScoreResult& result) {
    Json line = CompletionJson(completion, prompts_[completion.prompt], options_.sampling.seed);
    line["score"] = result.score ? Json(*result.score) : Json(nullptr);
    line["parts"] = Json::object();
    for (const auto& [name, value] : Parts(result)) {
      line["parts"][name] = value ? Json(*value) : Json(nullptr);
    }
    for (const reward::ScorePart& part : result.parts) {
      if (!part.message.empty()) line["message"] = part.message;
    }
    line["status"] = result.status;
    lines_ << line.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
  }

  const EvalOptions& options_;
  const std::vector<engine::Row> rows_;
  const std::vector<std::vector<std::int32_t>> prompts_;
  std::optional<learner::Progress> progress_;
  std::ofstream lines_;
  std::vector<Completion> group_;
  std::int64_t done_ = 0;
  double scoring_seconds_ = 0;
  Mean mean_, pass_one_, pass_all_, tokens_;
  std::map<std::string, Mean> parts_;
  Json statuses_ = Json::object();
};

std::vector<engine::Row> Rows(const EvalOptions& options) {
  if (!options.format.name.empty()) return ReadFormatRows(options.format, options.data);
  if (options.task.empty()) {
    return engine::ReadRows(options.data, engine::RowUse::kPrompt, "", "");
  }
  reward::TaskOptions task;
  task.seed = options.task_seed;
  std::vector<engine::Row> rows;
  for (const std::string& text : reward::HeldoutRows(options.task, task, options.task_rows)) {
    const std::string where = options.task + ": held-out row " + std::to_string(rows.size());
    rows.push_back(engine::ReadRow(configs::ParseJson(text, where), where,
                                   static_cast<std::int64_t>(rows.size()),
                                   engine::RowUse::kPrompt, "", ""));
  }
  return rows;
}

}  // namespace

double PassAtK(int n, int c, int k) {
  double miss = 1;
  for (int i = 0; i < k; ++i) miss *= double(std::max(0, n - c - i)) / double(n - i);
  return 1 - miss;
}

Json Evaluate(const EvalOptions& options) {
  // First: it starts its zygote, which wants a process without threads.
  reward::HostOptions host_options;
  host_options.functions = {options.reward};
  host_options.model_threads = Threads(options.sampling.threads);
  reward::RewardHost host(host_options);
  host.Check();
  std::vector<engine::Row> rows = Rows(options);
  const Model model = LoadModel(options.model_dir, options.sampling.numerics);
  std::vector<std::vector<std::int32_t>> prompts;
  for (const engine::Row& row : rows) prompts.push_back(engine::PromptIds(row, model.tokenizer));
  Evaluation evaluation(options, std::move(rows), std::move(prompts));
  const double seconds =
      SampleAll(model, evaluation.prompts(), options.sampling,
                [&](Completion completion) { evaluation.Add(std::move(completion), &host); });
  Json summary = evaluation.Summary(seconds);
  if (!options.format.name.empty()) {
    const Json format = FormatSummary(options.format);
    for (const auto& [key, value] : format.items()) summary[key] = value;
  }
  return summary;
}

}  // namespace temper::cli
