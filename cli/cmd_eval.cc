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
  bool json = false;
  SamplingArgs sampling;
  Args args("temper eval", "Completes the prompts of a data set and scores them: mean@n, pass@k.");
  args.Text("--model", "DIR", "model folder in Hugging Face layout", &options.model_dir).Required();
  args.Text("--data", "F.jsonl", "rows with prompt and, where the reward wants it, answer",
            &options.data);
  args.Required();
  args.Text("--reward", "FILE|rule:NAME", "a Lua script, or a rule; a format has its own", &reward);
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
