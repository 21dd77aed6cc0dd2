#include <filesystem>

#include "cli/args.h"
#include "cli/commands.h"
#include "cli/reward_commands.h"
#include "reward/function.h"

namespace temper::cli {

void RewardArgs::Declare(Args* args, const char* json_help) {
  args->Positional("SCRIPT", "a Lua file, or rule:NAME", &script);
  args->Flag("--json", json_help, &json);
  args->Number("--timeout", "seconds of wall clock a sample", 1e-3, 3600, &limits.timeout_s);
  args->Integer("--max-instructions", "of Lua's machine a sample", std::int64_t{1000}, INT64_MAX,
                &limits.max_instructions);
  args->Integer("--memory", "MiB a script", 1, 1 << 16, &limits.memory_mib);
}

reward::HostOptions RewardArgs::Options() const {
  reward::HostOptions options;
  options.functions = {reward::ParseRewardArgument(script)};
  options.limits = limits;
  return options;
}

std::string RunFolder(const std::string& given) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (fs::exists(fs::path(given) / "trajectories.db", error)) return given;
  const fs::path inner = fs::path(given) / "grpo";
  return fs::exists(inner / "trajectories.db", error) ? inner.string() : given;
}

int Reward(const Arguments& args) {
  constexpr Command kCommands[] = {
      {"test", "a script against its cases", RewardTest},
      {"lint", "a script against mistakes and hostile completions", RewardLint},
      {"try", "one completion, with print() and instructions a line", RewardTry},
      {"backtest", "a script on the rollouts of a run", RewardBacktest},
      {"watch", "test, again after each change of the script", RewardWatch},
      {"prompts", "the rows that a task script makes", RewardPrompts},
  };
  return RunGroup("temper reward", "A workshop for people who write rewards.", kCommands, args);
}

}  // namespace temper::cli
