#include <cstdio>

#include "cli/args.h"
#include "cli/reward_commands.h"
#include "configs/error.h"
#include "engine/data/rows.h"
#include "reward/cases.h"
#include "reward/function.h"
#include "reward/lint.h"

namespace temper::cli {
namespace {

/// A sample with the columns that the script will meet: of --data, else of its first case.
reward::SampleInput Example(const std::string& data, const reward::FunctionSpec& function,
                            const reward::HostOptions& options) {
  reward::SampleInput sample;
  sample.finish_reason = "stop";
  sample.prompt_json = "\"What is 17 + 25?\"";
  sample.row_json = R"({"prompt":"What is 17 + 25?","answer":"42"})";
  sample.answer = std::string("42");
  if (!data.empty()) {
    const engine::Row row = engine::ReadRows(data, engine::RowUse::kPrompt, "", "").at(0);
    sample.prompt_json = row.messages.is_array() ? row.messages.dump() : Json(row.prompt).dump();
    sample.row_json = row.json.dump();
    sample.answer = row.has_answer ? std::optional(row.answer) : std::nullopt;
    return sample;
  }
  const std::vector<reward::Case> cases = reward::CasesOfScript(function, options);
  return cases.empty() ? sample : cases[0].samples[0];
}

}  // namespace

int RewardLint(const Arguments& arguments) {
  RewardArgs given;
  std::string data;
  Args args("temper reward lint", "Looks for mistakes and tries hostile completions.");
  given.Declare(&args, "a line a finding {kind, line, message}, last {problems}");
  args.Text("--data", "F.jsonl", "its first row is what the script is tried with", &data);
  args.Note(
      "Tried: empty, 1 MB, invalid UTF-8, zero bytes, cut off, repeated, no answer. Without --data "
      "the\nrow is that of the script's first case. Exit code 1: there is a finding.\n");
  if (!args.Parse(arguments)) return 0;
  reward::FunctionSpec function;
  std::vector<reward::Finding> findings;
  reward::HostOptions options;
  options.limits = given.limits;
  if (given.script.rfind("rule:", 0) == 0) {
    function = reward::ParseRewardArgument(given.script);
  } else {
    // Not MakeFunction: a script that does not compile is a finding here.
    function.path = given.script;
    function.script = reward::ReadScript(given.script);
    function.name = "script";
  }
  reward::SampleInput like;
  try {
    like = Example(data, function, options);
    findings = reward::Lint(function, options, like);
  } catch (const UserError& error) {
    if (!data.empty()) throw;
    findings = reward::Lint(function, options, like);
    if (findings.empty()) findings.push_back({"cases", 0, error.what()});
  }
  for (const reward::Finding& finding : findings) {
    if (given.json) {
      PrintLine(
          Json{{"kind", finding.kind}, {"line", finding.line}, {"message", finding.message}}.dump(
              -1, ' ', false, Json::error_handler_t::replace));
    } else if (finding.line > 0) {
      std::printf("%s:%d: %s\n", given.script.c_str(), finding.line, finding.message.c_str());
    } else {
      std::printf("%s: %s\n", given.script.c_str(), finding.message.c_str());
    }
  }
  if (given.json) {
    PrintLine(Json{{"problems", findings.size()}}.dump());
  } else {
    std::printf("%zu problems\n", findings.size());
  }
  return findings.empty() ? 0 : 1;
}

}  // namespace temper::cli
