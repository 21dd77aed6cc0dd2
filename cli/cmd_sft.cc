#include <cstdlib>

#include "cli/child.h"
#include "cli/commands.h"
#include "cli/job_args.h"
#include "cli/supervisor.h"
#include "learner/core/rank_place.h"

namespace temper::cli {

int Sft(const Arguments& arguments) {
  JobArgs job;
  Args args("temper sft", "Supervised fine-tuning on rows of prompt and completion.");
  job.Declare(&args);
  if (!job.Parse(&args, arguments)) return 0;
  configs::Config config = job.Read(configs::Job::kSft);
  Arguments forwarded = {"sft"};
  forwarded.insert(forwarded.end(), arguments.begin(), arguments.end());
  if (config.learner.ranks == 1) {
    // Whatever job the shell belongs to.
    for (const auto& [name, value] : learner::EnvironmentOf({}))
      setenv(name.c_str(), value.c_str(), 1);
    ExecLearner(forwarded);
  }
  config.actors.count = config.reward_workers.count = 0;
  return Supervisor(config, forwarded).Run();
}

}  // namespace temper::cli
