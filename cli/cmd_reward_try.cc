#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <iterator>

#include "cli/args.h"
#include "cli/backtest.h"
#include "cli/reward_commands.h"
#include "configs/error.h"
#include "reward/cases.h"
#include "store/runs.h"

namespace temper::cli {
namespace {

struct Given {
  std::string completion, prompt, answer, row, finish = "stop", run, rollout;
};

/// The sample as a stored rollout had it.
reward::SampleInput Stored(const Given& given) {
  const std::string run = RunFolder(given.run);
  const Json rollout = store::ShowRollout(run, given.rollout);
  reward::SampleInput sample;
  sample.prompt_json = rollout.at("prompt").dump();
  sample.row_json = rollout.at("row").dump();
  sample.completion = rollout.at("text").get<std::string>();
  for (const Json& id : rollout.at("ids")) sample.completion_ids.push_back(id.get<std::int32_t>());
  sample.answer = reward::AnswerOfRow(rollout.at("row"), AnswerColumnOf(run));
  sample.finish_reason = rollout.at("finish_reason").get<std::string>();
  sample.version = rollout.at("version").get<std::uint32_t>();
  sample.step = rollout.at("granted_step").get<std::int64_t>();
  return sample;
}

reward::SampleInput Typed(const Args& args, const Given& given) {
  reward::SampleInput sample;
  sample.completion = given.completion;
  if (!args.Given("--completion")) {
    if (isatty(STDIN_FILENO) != 0) std::fprintf(stderr, "the completion, then Ctrl-D:\n");
    sample.completion.assign(std::istreambuf_iterator<char>(std::cin), {});
    if (!sample.completion.empty() && sample.completion.back() == '\n')
      sample.completion.pop_back();
  }
  const Json row = given.row.empty() ? Json::object()
                                     : configs::ParseJson(given.row, "temper reward try: --row");
  if (!row.is_object()) args.Fail("--row: must be a JSON object");
  sample.row_json = row.dump();
  const Json prompt = args.Given("--prompt") ? Json(given.prompt) : row.value("prompt", Json(""));
  sample.prompt_json = prompt.dump();
  sample.answer = reward::AnswerOfRow(row);
  if (args.Given("--answer")) sample.answer = given.answer;
  sample.finish_reason = given.finish;
  return sample;
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

void PrintTry(const reward::ScoreResult& result, const reward::FunctionSpec& function) {
  const reward::ScorePart& part = result.parts.at(0);
  if (!part.trace.printed.empty()) std::printf("%s", part.trace.printed.c_str());
  if (result.score) {
    std::printf("score %s\n", Json(*result.score).dump().c_str());
    const Json parts = reward::PartsOf(result, function.name);
    for (const auto& [name, value] : parts.items()) {
      std::printf("  %s %s\n", name.c_str(), value.dump().c_str());
    }
  } else {
    const std::string line = part.line > 0 ? " (line " + std::to_string(part.line) + ")" : "";
    std::printf("%s%s: %s\n", result.status.c_str(), line.c_str(), part.message.c_str());
  }
  if (function.script.empty()) return;
  const std::vector<std::string> source = Lines(function.script);
  std::printf("\n%lld instructions\n", static_cast<long long>(part.instructions));
  for (const auto& [line, count] : part.trace.lines) {
    const std::size_t at = static_cast<std::size_t>(line) - 1;
    std::printf("%8lld  %4d  %s\n", static_cast<long long>(count), line,
                at < source.size() ? source[at].c_str() : "");
  }
}

Json TryLine(const reward::ScoreResult& result, const reward::FunctionSpec& function) {
  const reward::ScorePart& part = result.parts.at(0);
  Json line = {{"status", result.status}};
  line["score"] = result.score ? Json(*result.score) : Json(nullptr);
  line["parts"] = reward::PartsOf(result, function.name);
  line["message"] = part.message;
  line["line"] = part.line;
  line["printed"] = part.trace.printed;
  line["instructions"] = part.instructions;
  line["lines"] = Json::array();
  for (const auto& [number, count] : part.trace.lines) {
    line["lines"].push_back({{"line", number}, {"instructions", count}});
  }
  line["ms"] = static_cast<double>(part.micros) / 1000;
  return line;
}

}  // namespace

int RewardTry(const Arguments& arguments) {
  RewardArgs given;
  Given sample;
  Args args("temper reward try", "Scores one completion and shows how the score came about.");
  given.Declare(&args, "one object");
  args.Text("--completion", "TEXT", "the completion; by default what stdin has",
            &sample.completion);
  args.Text("--prompt", "TEXT", "the prompt", &sample.prompt);
  args.Text("--answer", "TEXT", "the answer; by default the row's", &sample.answer);
  args.Text("--row", "JSON", "the dataset row, an object", &sample.row);
  args.Text("--finish-reason", "stop|length", "how the completion ended", &sample.finish);
  args.Text("--run", "RUN", "a run's folder, with --rollout", &sample.run);
  args.Text("--rollout", "NAME", "a stored rollout such as g41.s3@v17", &sample.rollout);
  args.Note("print() works here; the numbers before the lines are Lua instructions.\n");
  if (!args.Parse(arguments)) return 0;
  if (sample.run.empty() != sample.rollout.empty()) args.Fail("--run and --rollout go together");
  reward::HostOptions options = given.Options();
  options.trace = true;
  const reward::FunctionSpec function = options.functions[0];
  reward::RewardHost host(std::move(options));
  const reward::SampleInput input = sample.run.empty() ? Typed(args, sample) : Stored(sample);
  const reward::ScoreResult result = host.ScoreGroup(std::vector{input}).at(0);
  if (given.json) {
    PrintLine(TryLine(result, function).dump(-1, ' ', false, Json::error_handler_t::replace));
  } else {
    PrintTry(result, function);
  }
  return 0;
}

}  // namespace temper::cli
