#pragma once
// `temper probe loss`: the loss of a batch in a file, to hold it against another implementation.
#include <string>

#include "configs/config.h"

namespace temper::learner {

/// Reads logp, old_logp, rollout_logp, ref_logp (needed with beta > 0 only) and mask F32 [N, T],
/// rewards F32 [N] (NaN = not applicable); groups are consecutive rows of num_generations. Writes
/// loss F32 [1], grad F32 [N, T] and advantages F32 [N]. The whole file is one optimizer step.
/// Returns {"loss", and the metrics of PolicyLoss and RewardMetrics under their names}.
/// Throws UserError "IN: tensor: found X; the rule" for a tensor that is missing, misshapen or of
/// another dtype, a mask that is not 0 or 1, an infinite reward, and rows that are not whole
/// groups; MachineError if `out` cannot be written.
Json ProbeLoss(const configs::Grpo& config, const std::string& in_path,
               const std::string& out_path);

}  // namespace temper::learner
