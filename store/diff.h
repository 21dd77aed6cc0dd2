#pragma once
// Two runs side by side: where the same prompts gave other rollouts, scores or steps.
#include <string>

#include "configs/json.h"

namespace temper::store {

/// Compares the live rollouts of both runs by (group, sample), and their steps. Bits count: two NaN
/// of one pattern are equal, 0 and -0 are not. {"equal", "rollouts": {"both", "only_a", "only_b",
/// "differ": {COLUMN: count}}, "steps": {the same}, "first": [text]}: `first` names the first
/// kMaxDifferences differences. Throws UserError for what is no run.
Json DiffRuns(const std::string& run_a, const std::string& run_b);

constexpr std::size_t kMaxDifferences = 10;

}  // namespace temper::store
