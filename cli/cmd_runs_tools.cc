#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <memory>

#include "cli/args.h"
#include "cli/reward_commands.h"
#include "cli/runs_commands.h"
#include "configs/error.h"
#include "configs/files.h"
#include "store/diff.h"
#include "store/export.h"
#include "store/maintain.h"
#include "store/parquet.h"
#include "store/verify.h"

namespace temper::cli {
namespace {

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

/// The report's counts on one line: "rollouts 800, groups 100".
std::string Counts(const Json& report) {
  std::string text;
  for (const auto& [key, value] : report.items()) {
    if (!value.is_number()) continue;
    text += (text.empty() ? "" : ", ") + key + " " + value.dump();
  }
  return text;
}

void Print(const Json& report, bool json) {
  json ? PrintLine(report.dump()) : PrintLine(Counts(report));
}

int ExportParquet(Args& args, const std::string& run, const store::ExportOptions& options,
                  const std::string& out) {
  if (options.sft) args.Fail("--sft rows are for temper sft, which reads JSON lines");
  if (configs::Exists(out)) throw UserError(out + ": File exists; choose a new file");
  std::int64_t rows = 0;
  try {
    store::ParquetWriter writer(out);
    store::ExportRun(RunFolder(run), options, [&](const Json& row) {
      writer.Add(row);
      ++rows;
    });
    writer.Close();
  } catch (...) {
    std::remove(out.c_str());
    throw;
  }
  std::fprintf(stderr, "%lld rows in %s\n", static_cast<long long>(rows), out.c_str());
  return 0;
}

}  // namespace

int RunsExport(const Arguments& arguments) {
  std::string run, out;
  bool json = false;
  store::ExportOptions options;
  Args args("temper runs export", "The rollouts of a run, an object a line.");
  args.Positional("RUN", "the run's folder", &run);
  args.Text("--out", "F.jsonl", "the file; by default stdout; F.parquet in builds with Arrow",
            &out);
  args.Text("--where", "SQL", "an expression over rollout and prompt_group: \"score > 0.5\"",
            &options.where);
  args.Flag("--sft", "rows of prompt and completion for temper sft", &options.sft);
  args.Integer("--best-of", "so many of each group, by score; 0 = all", 0, INT_MAX,
               &options.best_of);
  args.Flag("--json", "an object a line (the only form)", &json);
  args.Note(
      "Without --where, --sft takes the rollouts that have a score and ended by themselves.\n");
  if (!args.Parse(arguments)) return 0;
  if (out.ends_with(".parquet")) return ExportParquet(args, run, options, out);
  std::unique_ptr<std::FILE, Close> file;
  if (!out.empty()) {
    file.reset(std::fopen(out.c_str(), "wbx"));
    if (!file) throw UserError(out + ": " + std::strerror(errno) + "; choose a new file");
  }
  std::int64_t rows = 0;
  const auto give = [&](const Json& row) {
    const std::string line = row.dump(-1, ' ', false, Json::error_handler_t::replace);
    ++rows;
    if (!file) return PrintLine(line);
    if (std::fwrite((line + "\n").data(), 1, line.size() + 1, file.get()) != line.size() + 1) {
      throw MachineError(out + ": " + std::strerror(errno));
    }
  };
  try {
    store::ExportRun(RunFolder(run), options, give);
    if (file && std::fflush(file.get()) != 0) throw MachineError(out + ": " + std::strerror(errno));
  } catch (...) {
    if (file) std::remove(out.c_str());  // half a file looks like a whole one
    throw;
  }
  if (file) std::fprintf(stderr, "%lld rows in %s\n", static_cast<long long>(rows), out.c_str());
  return 0;
}

int RunsVerify(const Arguments& arguments) {
  std::string run;
  bool json = false;
  Args args(
      "temper runs verify",
      "Reads the whole database and every checkpoint; exit 1 if something is not as written.");
  args.Positional("RUN", "the run's folder", &run);
  args.Flag("--json", "one object", &json);
  if (!args.Parse(arguments)) return 0;
  const Json report = store::VerifyRun(RunFolder(run));
  if (json) {
    PrintLine(report.dump());
  } else {
    for (const Json& problem : report["problems"]) PrintLine(problem.get<std::string>());
    if (report["more"] != 0) PrintLine("... and " + report["more"].dump() + " more");
    PrintLine((report["ok"] == true ? "whole: " : "not whole: ") + Counts(report));
  }
  return report["ok"] == true ? 0 : 1;
}

int RunsDiff(const Arguments& arguments) {
  std::string a, b;
  bool json = false;
  Args args("temper runs diff",
            "Compares the rollouts and steps of two runs; exit 1 if they differ.");
  args.Positional("RUN", "a run's folder", &a);
  args.Positional("OTHER", "another's", &b);
  args.Flag("--json", "one object", &json);
  if (!args.Parse(arguments)) return 0;
  const Json report = store::DiffRuns(RunFolder(a), RunFolder(b));
  if (json) {
    PrintLine(report.dump());
  } else {
    for (const Json& difference : report["first"]) PrintLine(difference.get<std::string>());
    for (const char* table : {"rollouts", "steps"}) {
      std::string text = std::string(table) + ": " + Counts(report[table]);
      for (const auto& [column, count] : report[table]["differ"].items()) {
        text += ", " + column + " differs in " + count.dump();
      }
      PrintLine(text);
    }
    PrintLine(report["equal"] == true ? "equal" : "different");
  }
  return report["equal"] == true ? 0 : 1;
}

int RunsBackup(const Arguments& arguments) {
  std::string run, out;
  bool json = false;
  Args args("temper runs backup",
            "Copies the trajectory database of one moment; the run may go on.");
  args.Positional("RUN", "the run's folder", &run);
  args.Positional("OUT", "the new database file", &out);
  args.Flag("--json", "one object", &json);
  if (!args.Parse(arguments)) return 0;
  Print(store::BackupRun(RunFolder(run), out), json);
  return 0;
}

int RunsPrune(const Arguments& arguments) {
  std::string run;
  bool json = false;
  store::PruneOptions options;
  Args args("temper runs prune",
            "Removes the rollouts of old steps; steps, metrics and what a resume needs stay.");
  args.Positional("RUN", "the run's folder; nobody writes it", &run);
  args.Integer("--before-step", "groups trained in the steps below it go", std::int64_t{1},
               INT64_MAX, &options.before_step)
      .Required();
  args.Flag("--dry-run", "say what would go", &options.dry_run);
  args.Flag("--json", "one object", &json);
  if (!args.Parse(arguments)) return 0;
  Print(store::PruneRun(RunFolder(run), options), json);
  return 0;
}

}  // namespace temper::cli
