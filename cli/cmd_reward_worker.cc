#include <unistd.h>

#include "cli/args.h"
#include "cli/commands.h"
#include "cli/stop.h"
#include "reward/worker.h"

namespace temper::cli {

int RewardWorker(const Arguments& arguments) {
  reward::WorkerOptions options;
  options.name = "w" + std::to_string(getpid());
  Args args("temper reward-worker", "Scores rollouts for a learner until it says goodbye.");
  args.Text("--connect", "EP", "the learner's endpoint, as RUN/endpoint says", &options.endpoint);
  args.Required();
  args.Text("--keys", "FILE", "CURVE keys made by temper keys new; loopback needs none", &options.keys);
  args.Text("--name", "NAME", "unique in the run", &options.name);
  if (!args.Parse(arguments)) return 0;
  options.stop = StopOnSignal();
  return reward::RunWorker(options);
}

}  // namespace temper::cli
