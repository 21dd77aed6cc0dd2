#pragma once
// The workshop of reward scripts: temper reward test, lint, try, backtest, watch, prompts.
#include "cli/program.h"
#include "reward/host.h"

namespace temper::cli {

class Args;

int RewardTest(const Arguments& args);
int RewardLint(const Arguments& args);
int RewardTry(const Arguments& args);
int RewardBacktest(const Arguments& args);
int RewardWatch(const Arguments& args);
int RewardPrompts(const Arguments& args);

/// Options that each of them has: the limits of a script.
struct RewardArgs {
  std::string script;  // a path, or rule:NAME
  bool json = false;
  reward::Limits limits;

  void Declare(Args* args, const char* json_help);
  /// A host with the one function; UserError "script:line: message" if it cannot run.
  reward::HostOptions Options() const;
};

/// RUN itself, or the run with a database in a folder of runs that belong together (a
/// quickstart's).
std::string RunFolder(const std::string& given);

}  // namespace temper::cli
