#include <filesystem>

#include "cli/args.h"
#include "cli/commands.h"
#include "cli/reward_commands.h"
#include "cli/runs_commands.h"
#include "store/runs.h"
#include "store/trajectories.h"

namespace temper::cli {
namespace {

int List(const Arguments& arguments) {
  std::string dir;
  bool json = false;
  Args args("temper runs list", "The runs in a folder.");
  args.Positional("DIR", "folder of runs, or one run", &dir);
  args.Flag("--json", "an object a line", &json);
  if (!args.Parse(arguments)) return 0;
  const std::vector<Json> runs = store::ListRuns(dir);
  if (json) {
    for (const Json& run : runs) PrintLine(run.dump());
  } else {
    std::fputs(store::ListText(runs).c_str(), stdout);
  }
  return 0;
}

int Show(const Arguments& arguments) {
  std::string run, rollout;
  bool json = false;
  Args args("temper runs show", "A run, or one of its rollouts.");
  args.Positional("RUN", "the run's folder", &run);
  args.Positional("ROLLOUT", "such as g41.s3@v17", &rollout).Optional();
  args.Flag("--json", "one object", &json);
  if (!args.Parse(arguments)) return 0;
  run = RunFolder(run);
  const Json found = rollout.empty() ? store::ShowRun(run) : store::ShowRollout(run, rollout);
  if (json) {
    PrintLine(found.dump());
  } else {
    std::fputs((rollout.empty() ? store::RunText(found) : store::RolloutText(found)).c_str(),
               stdout);
  }
  return 0;
}

int Query(const Arguments& arguments) {
  std::string run, sql;
  bool json = false;
  Args args("temper runs query", "SQL over a run's trajectories; an object a row.");
  args.Positional("RUN", "the run's folder", &run);
  args.Positional("SQL", "one reading statement", &sql);
  args.Flag("--json", "an object a row (the only form)", &json);
  if (!args.Parse(arguments)) return 0;
  store::Reader((std::filesystem::path(RunFolder(run)) / "trajectories.db").string())
      .Query(sql, [](const Json& row) { PrintLine(row.dump()); });
  return 0;
}

}  // namespace

int Runs(const Arguments& args) {
  constexpr Command kCommands[] = {
      {"list", "the runs in a folder", List},
      {"show", "a run, or one rollout", Show},
      {"query", "SQL over a run's trajectories", Query},
      {"export", "rollouts as JSONL, or as rows to fine-tune on", RunsExport},
      {"verify", "whether database and checkpoints are what was written", RunsVerify},
      {"replay", "generate rollouts again, bit by bit", RunsReplay},
      {"diff", "where two runs differ", RunsDiff},
      {"backup", "a copy of the database, while the run goes on", RunsBackup},
      {"prune", "remove old rollouts", RunsPrune},
  };
  return RunGroup("temper runs", "The trajectory database of a run.", kCommands, args);
}

}  // namespace temper::cli
