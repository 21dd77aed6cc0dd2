#include "cli/job_args.h"

#include <algorithm>
#include <cstdio>

#include "configs/error.h"
#include "configs/files.h"
#include "reward/function.h"

namespace temper::cli {

void JobArgs::Declare(Args* args) {
  args->Positional("CONFIG", "JSON file of settings", &config_path);
  args->List("--set", "a.b=VALUE",
             "one setting over the file's; VALUE is JSON or text; null = unset", &sets);
  args->Flag("--resume", "continue the run in output_dir", &resume);
  args->Flag("--help-keys", "print every setting with default, range and meaning", &help_keys);
}

bool JobArgs::Parse(Args* args, const std::vector<std::string>& arguments) {
  if (std::find(arguments.begin(), arguments.end(), "--help-keys") != arguments.end()) {
    std::fputs(configs::HelpKeys().c_str(), stdout);
    return false;
  }
  return args->Parse(arguments);
}

configs::Config JobArgs::Read(configs::Job job, bool owns) const {
  std::vector<std::string> all = sets;
  if (resume) all.push_back("resume=true");
  configs::Config config = configs::ReadConfig(config_path, all, job);
  if (owns && !config.resume && configs::Exists(config.output_dir)) {
    throw UserError(
        config.output_dir +
        ": output_dir exists; continue that run with --resume or choose another folder");
  }
  // A script that does not compile is told before anything is written.
  if (job == configs::Job::kGrpo) reward::LoadFunctions(config.rewards);
  return config;
}

}  // namespace temper::cli
