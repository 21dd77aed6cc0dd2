#include "cli/args.h"
#include "cli/commands.h"
#include "learner/core/probe_loss.h"

namespace temper::cli {

int ProbeLoss(const Arguments& arguments) {
  std::string in, out;
  std::vector<std::string> sets;
  bool json = false;
  Args args("temper probe loss", "Loss, gradient and advantages of given log-probs and rewards.");
  args.Text("--in", "F.safetensors", "logp old_logp rollout_logp ref_logp mask [N,T], rewards [N]",
            &in);
  args.Required();
  args.Text("--out", "O.safetensors", "loss [1], grad [N,T], advantages [N]", &out).Required();
  args.List("--set", "grpo.KEY=VALUE", "a setting of the loss", &sets);
  args.Flag("--json", "metrics as JSON (the only form)", &json);
  if (!args.Parse(arguments)) return 0;
  PrintLine(learner::ProbeLoss(configs::GrpoFromSets(sets), in, out).dump());
  return 0;
}

}  // namespace temper::cli
