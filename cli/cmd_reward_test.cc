#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "cli/args.h"
#include "cli/reward_commands.h"
#include "cli/stop.h"
#include "configs/error.h"
#include "reward/cases.h"
#include "reward/function.h"

namespace temper::cli {
namespace {

struct Counts {
  int passed = 0, failed = 0;
};

void PrintText(const reward::Case& c, const reward::CaseResult& result, const Json& line) {
  std::string text = std::string(result.ok ? "ok      " : "FAILED  ") + c.name;
  if (!result.ok) {
    text += ": " + result.why;
    if (line["message"] != "" && line["message"] != result.why) {
      text += " (";
      if (line["line"] != 0) text += "line " + line["line"].dump() + ": ";
      text += line["message"].get<std::string>() + ")";
    }
  }
  std::printf("%s\n", text.c_str());
}

/// Runs all cases: those of the file, or of the script.
Counts TestOnce(const RewardArgs& given, const std::string& cases_path) {
  reward::HostOptions options = given.Options();
  const std::string name = options.functions[0].name;
  const reward::FunctionSpec function = options.functions[0];
  std::vector<reward::Case> cases =
      cases_path.empty() ? reward::CasesOfScript(function, options) : reward::ReadCases(cases_path);
  if (cases.empty()) {
    throw UserError(given.script +
                    ": there is no case; give --cases F.jsonl or a list `cases` in the script");
  }
  reward::RewardHost host(std::move(options));
  host.Check();
  Counts counts;
  for (const reward::Case& c : cases) {
    const reward::CaseResult result = reward::RunCase(c, name, host);
    ++(result.ok ? counts.passed : counts.failed);
    const Json line = reward::CaseLine(c, result, name);
    if (given.json) {
      PrintLine(line.dump(-1, ' ', false, Json::error_handler_t::replace));
    } else {
      PrintText(c, result, line);
    }
  }
  if (given.json) {
    PrintLine(Json{{"passed", counts.passed}, {"failed", counts.failed}}.dump());
  } else {
    std::printf("%d passed, %d failed\n", counts.passed, counts.failed);
  }
  std::fflush(stdout);
  return counts;
}

std::filesystem::file_time_type Changed(const std::string& path) {
  std::error_code error;
  const auto time = std::filesystem::last_write_time(path, error);
  return error ? std::filesystem::file_time_type::min() : time;
}

}  // namespace

int RewardTest(const Arguments& arguments) {
  RewardArgs given;
  std::string cases;
  Args args("temper reward test", "Scores the cases of a script and says which differ.");
  given.Declare(&args, "a line a case, last {passed, failed}");
  args.Text("--cases", "F.jsonl", "the cases; by default the script's own list `cases`", &cases);
  args.Note("Exit code 1: a case differs.\n");
  if (!args.Parse(arguments)) return 0;
  return TestOnce(given, cases).failed > 0 ? 1 : 0;
}

int RewardWatch(const Arguments& arguments) {
  RewardArgs given;
  std::string cases;
  Args args("temper reward watch", "Tests a script now and after each change, until Ctrl-C.");
  given.Declare(&args, "as temper reward test");
  args.Text("--cases", "F.jsonl", "the cases; by default the script's own list `cases`", &cases);
  if (!args.Parse(arguments)) return 0;
  const std::atomic<bool>* const stop = StopOnSignal();
  for (bool first = true; !*stop; first = false) {
    if (!first) std::fprintf(stderr, "-- %s changed\n", given.script.c_str());
    const auto script = Changed(given.script), file = Changed(cases);
    try {
      TestOnce(given, cases);
    } catch (const UserError& error) {  // a script that is being written is often broken
      if (first && Changed(given.script) == std::filesystem::file_time_type::min()) throw;
      std::fprintf(stderr, "%s\n", error.what());
    }
    while (!*stop && Changed(given.script) == script && Changed(cases) == file) {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
  }
  return 0;
}

}  // namespace temper::cli
