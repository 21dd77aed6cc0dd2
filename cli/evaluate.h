#pragma once
// Held-out rows completed and scored: mean@n, pass@k and what failed.
#include <string>

#include "cli/eval_formats.h"
#include "cli/model.h"
#include "configs/json.h"
#include "reward/host.h"

namespace temper::cli {

struct EvalOptions {
  std::string model_dir;
  std::string data;  // JSONL with prompts, and answers where the reward wants them, or
  std::string task;  // a Lua file that makes them: its first held-out rows
  std::uint64_t task_seed = 0;
  int task_rows = 500;
  reward::FunctionSpec reward;
  Sampling sampling;
  double threshold = 1.0;  // a score at least this passes
  bool show_progress = true;
  EvalFormat format;         // name "" = rows with prompt and answer
  std::string samples_path;  // "" = none; a line a sample otherwise
};

/// {"summary": true, "prompts", "n", "mean@n", "pass@1", "pass@n", "parts", "statuses",
/// "completion_tokens_mean", "tok_s"}. A sample without a score (not applicable, or its reward
/// failed) is left out of mean and pass and counted in statuses; a mean of nothing is null. Throws
/// UserError for model, data, reward or samples_path; MachineError for I/O.
Json Evaluate(const EvalOptions& options);

/// 1 - C(n - c, k) / C(n, k): the chance that k of n samples hold one of the c right ones (Chen et
/// al. 2021, eq. 1).
double PassAtK(int n, int c, int k);

}  // namespace temper::cli
