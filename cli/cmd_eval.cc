#include <climits>

#include "cli/commands.h"
#include "cli/evaluate.h"
#include "cli/sampling_args.h"
#include "reward/function.h"

namespace temper::cli {

int Eval(const Arguments& arguments) {
  EvalOptions options;
  std::string reward;
  int n = 1;
  std::int64_t task_seed = 0;
  bool json = false;
  SamplingArgs sampling;
  Args args("temper eval", "Completes the prompts of a data set and scores them: mean@n, pass@k.");
  args.Text("--model", "DIR", "model folder in Hugging Face layout", &options.model_dir).Required();
  args.Text("--data", "F.jsonl", "rows with prompt and, where the reward wants it, answer",
            &options.data);
  args.Text("--task", "FILE", "a Lua task instead: the rows that a run of its seed never trains on",
            &options.task);
  args.Integer("--task-seed", "`seed` of that run", std::int64_t{0}, INT64_MAX, &task_seed);
  args.Integer("--task-rows", "held-out rows; the run's data.heldout has at least so many", 1,
               1000000, &options.task_rows);
  args.Text("--reward", "FILE|rule:NAME|model:DIR|ENDPOINT",
            "a Lua script, a rule, a reward model or a remote; a format has its own, a task is one",
            &reward);
  args.Text("--format", "NAME", "published rows: gsm8k, math, mmlu, ceval (humaneval: refused)",
            &options.format.name);
  args.Integer("--shots", "worked examples before each question of a format", 0, 100,
               &options.format.shots);
  args.Text("--shots-data", "F.jsonl", "where the examples are, its first rows",
            &options.format.shots_data);
  args.Integer("--n", "samples a prompt", 1, INT_MAX, &n);
  args.Number("--threshold", "a score at least this passes", -1e300, 1e300, &options.threshold);
  args.Text("--samples", "F.jsonl", "gets a line a sample", &options.samples_path);
  sampling.Declare(&args);
  args.Flag("--json", "JSON lines (the only form)", &json);
  args.Note(
      "With --n 1 sampling is greedy unless --temperature is given. With --shots a sample ends "
      "where "
      "the\nnext question would begin.\n");
  if (!args.Parse(arguments)) return 0;
  if (n == 1 && !args.Given("--temperature")) sampling.temperature = 0;
  options.sampling = sampling.Resolve(args, n);
  options.task_seed = static_cast<std::uint64_t>(task_seed);
  if (options.data.empty() == options.task.empty()) {
    args.Fail("--data, --task: one of them must be given");
  }
  if (!options.task.empty() && !options.format.name.empty()) {
    args.Fail("--format: says how the rows of --data are read; a task's are its own");
  }
  if (reward.empty()) reward = options.task;
  if (reward.empty() && options.format.name.empty()) args.Fail("--reward: must be given");
  if (!options.format.name.empty()) {
    options.reward = FormatReward(options.format.name);
    if (options.format.shots > 0) {
      options.sampling.stops.push_back(FormatStop(options.format.name));
    }
  }
  if (!reward.empty()) options.reward = reward::ParseRewardArgument(reward);
  PrintLine(Evaluate(options).dump());
  return 0;
}

}  // namespace temper::cli
