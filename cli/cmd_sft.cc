#include "cli/child.h"
#include "cli/commands.h"

namespace temper::cli {

int Sft(const Arguments& args) {
  // temper-learner declares the options, so that --help and errors have one source.
  Arguments forwarded = {"sft"};
  forwarded.insert(forwarded.end(), args.begin(), args.end());
  ExecLearner(forwarded);
}

}  // namespace temper::cli
