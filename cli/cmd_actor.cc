#include "actor/actor.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/stop.h"
#include "engine/decoder.h"

namespace temper::cli {

int Actor(const Arguments& arguments) {
  std::string endpoint;
  actor::Options options;
  Args args("temper actor", "Generates rollouts for a learner until it says goodbye.");
  args.Text("--connect", "EP", "the learner's endpoint, as RUN/endpoint says", &endpoint)
      .Required();
  args.Text("--keys", "FILE", "CURVE keys made by temper keys new; loopback needs none",
            &options.keys);
  args.Text("--name", "NAME", "unique in the run; by default host and process", &options.name);
  args.Integer("--threads", "0 = what the run says, or all cores", 0, 4096, &options.threads);
  args.Text("--device", "D",
            "cpu, or in a build with CUDA cuda:N, or cuda:N-M: experts over all of these",
            &options.device);
  if (!args.Parse(arguments)) return 0;
  engine::CheckDevice(options.device);  // before a learner counts on it
  options.stop = StopOnSignal();
  return actor::RunActor(endpoint, options);
}

}  // namespace temper::cli
