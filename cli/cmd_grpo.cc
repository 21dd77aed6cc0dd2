#include "cli/commands.h"
#include "cli/job_args.h"
#include "cli/supervisor.h"
#include "reward/function.h"

namespace temper::cli {

int Grpo(const Arguments& arguments) {
  JobArgs job;
  Args args("temper grpo", "GRPO: one learner, local actors and reward workers, until max_steps.");
  job.Declare(&args);
  args.Note(
      "Results (a JSON line a logging step) go to stdout and RUN/metrics.jsonl, progress to "
      "stderr, "
      "the others'\nlogs to RUN/logs. More actors may join from anywhere: temper actor --connect "
      "$(cat RUN/endpoint).\n");
  std::string from;
  args.Text("--from", "RUN", "no actors: train the rollouts that RUN has stored, step by step",
            &from);
  if (!job.Parse(&args, arguments)) return 0;
  configs::Config config = job.Read(configs::Job::kGrpo);
  reward::CheckScripts(config.rewards, config.reward);  // before anything is written
  Arguments learner_args = {"grpo", job.config_path};
  for (const std::string& set : job.sets) learner_args.insert(learner_args.end(), {"--set", set});
  if (job.resume) learner_args.push_back("--resume");
  if (!from.empty()) {
    learner_args.insert(learner_args.end(), {"--from", from});
    config.actors.count = config.reward_workers.count = 0;  // of ours; the learner reads its own
  }
  return Supervisor(config, learner_args).Run();
}

}  // namespace temper::cli
