#include <climits>
#include <fstream>
#include <limits>

#include "cli/args.h"
#include "cli/commands.h"
#include "cli/model.h"
#include "configs/error.h"
#include "configs/files.h"
#include "engine/numerics.h"
#include "engine/teacher.h"
#include "learner/core/progress.h"

namespace temper::cli {

namespace {

Json Line(const engine::TrainingIds& row, const std::vector<engine::TopIds>& tops) {
  const auto end = row.ids.begin() + row.prompt;
  Json ids = Json::array(), logps = Json::array();
  for (const engine::TopIds& top : tops) {
    ids.push_back(top.ids);
    logps.push_back(top.logp);
  }
  return {{"prompt_ids", std::vector<std::int32_t>(row.ids.begin(), end)},
          {"completion_ids", std::vector<std::int32_t>(end, row.ids.end())},
          {"teacher_ids", std::move(ids)},
          {"teacher_logprobs", std::move(logps)}};
}

}  // namespace

int Teach(const Arguments& arguments) {
  std::string model_dir, data, out, dtype = "fp32", cache_dtype = "fp32";
  int top_k = 32, threads = 0;
  double temperature = 1;
  Args args("temper teach",
            "Has a teacher judge rows of prompt and completion: distillation rows for temper sft.");
  args.Text("--model", "DIR", "the teacher; it needs the student's tokenizer", &model_dir)
      .Required();
  args.Text("--data", "F.jsonl", "rows as temper sft reads them", &data).Required();
  args.Text("--out", "F.jsonl", "the new file; must not exist", &out).Required();
  args.Integer("--top-k", "ids kept at every place", 1, INT_MAX, &top_k);
  args.Number("--temperature", "of the teacher's distribution, > 0",
              std::numeric_limits<double>::min(), 1e6, &temperature);
  args.Text("--dtype", "M", "fp32, bf16, fp8 or fp8-w8a8", &dtype);
  args.Text("--cache-dtype", "C", "fp32, bf16 or fp8", &cache_dtype);
  args.Integer("--threads", "0 = all cores", 0, INT_MAX, &threads);
  if (!args.Parse(arguments)) return 0;
  if (configs::Exists(out)) throw UserError(out + ": exists already; name a new file");
  const Model model = LoadModel(model_dir, engine::ParseNumerics(dtype, cache_dtype, "pow2"));
  const std::vector<engine::Row> rows = engine::ReadRows(data, engine::RowUse::kCompletion, "", "");
  engine::Teacher teacher(model.weights, Threads(threads));
  learner::Progress progress("teach", "row", std::int64_t(rows.size()));
  std::string text;
  std::int64_t done = 0, tokens = 0;
  for (const engine::Row& row : rows) {
    engine::TrainingIds ids = engine::CompletionIds(row, model.tokenizer);
    ids.prompt = std::max(1, ids.prompt);
    std::vector<engine::TopIds> tops;
    try {
      tops = teacher.Judge(ids.ids, ids.prompt, top_k, float(temperature));
    } catch (const UserError& error) {
      throw UserError(row.where + ": " + error.what());
    }
    tokens += std::int64_t(tops.size());
    text += Line(ids, tops).dump() + "\n";
    if (++done % 64 == 0) progress.At(done);
  }
  configs::WriteWholeFile(out, text);
  PrintLine(Json{{"rows", rows.size()}, {"tokens", tokens}, {"top_k", top_k}, {"out", out}}.dump());
  return 0;
}

}  // namespace temper::cli
