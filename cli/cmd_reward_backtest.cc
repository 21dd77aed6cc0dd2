#include <cstdio>

#include "cli/args.h"
#include "cli/backtest.h"
#include "cli/reward_commands.h"
#include "configs/files.h"
#include "reward/function.h"

namespace temper::cli {

int RewardBacktest(const Arguments& arguments) {
  RewardArgs given;
  BacktestOptions options;
  std::string run, against, out = "backtest.html";
  Args args("temper reward backtest", "Scores the rollouts of a run again and compares.");
  given.Declare(&args, "one object");
  args.Text("--run", "RUN", "the run's folder", &run).Required();
  args.Text("--against", "OTHER", "another script or rule:NAME; by default the run's own scores",
            &against);
  args.Integer("--groups", "only the first so many; 0 = all", std::int64_t{0}, INT64_MAX,
               &options.limit);
  args.Text("--out", "F.html", "the report", &out);
  if (!args.Parse(arguments)) return 0;
  options.run_dir = RunFolder(run);
  options.host = given.Options();
  if (!against.empty()) {
    reward::HostOptions other = options.host;
    other.functions = {reward::ParseRewardArgument(against)};
    options.against = other;
  }
  const Backtest test = RunBacktest(options);
  const std::string before = against.empty() ? "the scores stored in " + run : against;
  configs::WriteWholeFile(out,
                          BacktestPage(test, "Backtest of " + given.script, before, given.script));
  Json summary = BacktestSummary(test);
  summary["report"] = out;
  if (given.json) {
    PrintLine(summary.dump());
    return 0;
  }
  for (const auto& [key, value] : summary.items()) {
    std::printf("%-24s %s\n", key.c_str(),
                value.is_string() ? value.get<std::string>().c_str() : value.dump().c_str());
  }
  return 0;
}

}  // namespace temper::cli
