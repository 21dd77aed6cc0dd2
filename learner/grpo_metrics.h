#pragma once
// The lines of metrics that a GRPO step writes, and the words of its progress line.
#include <string>

#include "learner/batch_gradient.h"
#include "learner/core/service.h"

namespace temper::learner {

/// NaN where no sample of the step has a score.
double RewardOf(const Json& line);

/// For the progress line: what failed in the step stands behind the reward.
std::string NoteOf(const Json& line);

/// What one optimizer step adds to its line.
Json StepMetrics(const engine::ModelConfig& config, const BatchGradient& gradient,
                 const UpdateReport& update, std::int64_t step, std::uint32_t version);

/// What all steps of a batch share.
Json ServingMetrics(const Batch& taken, const ServiceStats& stats, bool dynamic);

}  // namespace temper::learner
