#pragma once
// `temper sft`: supervised fine-tuning on packed rows of prompt and completion.
#include "configs/config.h"
#include "learner/communicator.h"

namespace temper::sft {

/// Runs config.sft to max_steps and returns the exit code 0. Writes RUN/config.json, metrics.jsonl,
/// tb/ and checkpoints/; a JSON line of metrics to stdout every logging step, progress with rate
/// and time left to stderr. Loss of a step: sum of -log p over its trained tokens / their number,
/// plus mtp_loss_scale times the same of the MTP layer. Throws UserError (output_dir exists without
/// resume, no valid checkpoint, a row over max_length, no trained token), MachineError.
int RunSft(const configs::Config& config, learner::Communicator& ranks);

}  // namespace temper::sft
