#include <unistd.h>

#include <climits>
#include <cstdio>

#include "cli/commands.h"
#include "cli/sampling_args.h"
#include "learner/core/progress.h"

namespace temper::cli {

int Generate(const Arguments& arguments) {
  std::string model_dir, prompt, prompts_file;
  int n = 1;
  bool json = false;
  SamplingArgs sampling_args;
  Args args("temper generate", "Completes prompts.");
  args.Text("--model", "DIR", "model folder in Hugging Face layout", &model_dir).Required();
  args.Text("--prompt", "TEXT", "one prompt", &prompt);
  args.Text("--prompts", "F.jsonl", "rows {\"prompt\"} (a string or messages) or {\"ids\"}",
            &prompts_file);
  args.Integer("--n", "samples a prompt", 1, INT_MAX, &n);
  sampling_args.Declare(&args);
  args.Flag("--json", "JSON lines on a terminal too", &json);
  args.Note("On a terminal stdout gets the texts, elsewhere a JSON object a sample.\n");
  if (!args.Parse(arguments)) return 0;
  if (args.Given("--prompt") == args.Given("--prompts")) {
    args.Fail("give either --prompt or --prompts");
  }
  const Sampling sampling = sampling_args.Resolve(args, n);
  const Model model = LoadModel(model_dir, sampling.numerics);
  std::vector<std::vector<std::int32_t>> prompts;
  if (args.Given("--prompt")) {
    prompts.push_back(model.tokenizer.EncodePrompt(prompt));
  } else {
    for (const engine::Row& row : engine::ReadRows(prompts_file, engine::RowUse::kPrompt, "", "")) {
      prompts.push_back(engine::PromptIds(row, model.tokenizer));
    }
  }
  const bool lines = json || isatty(STDOUT_FILENO) == 0;
  const auto total = static_cast<std::int64_t>(prompts.size()) * n;
  learner::Progress progress("generate", "sample", total);
  std::int64_t done = 0;
  SampleAll(model, prompts, sampling, [&](const Completion& completion) {
    if (lines) {
      PrintLine(CompletionJson(completion, prompts[completion.prompt], sampling.seed).dump());
    } else {
      if (total > 1) std::printf("[%zu.%u] ", completion.prompt, completion.sample.sample);
      PrintLine(completion.text);
    }
    if (++done % 64 == 0 && total > 64) progress.At(done);
  });
  return 0;
}

}  // namespace temper::cli
