#pragma once
// A task without a dataset: one script makes the prompts and scores the completions.
#include <cstdint>
#include <string>
#include <vector>

#include "reward/sample.h"

namespace temper::reward {

struct TaskOptions {
  std::uint64_t seed = 0;
  int heldout = 500;  // rows that the training split must not have
  Limits limits;
};

/// Rows of prompts(rng, n), JSON objects. The same options give the same rows, and more rows begin
/// with the fewer. UserError "script:line: message" when the script makes none.
std::vector<std::string> HeldoutRows(const std::string& script, const TaskOptions& options,
                                     int count);

/// The same from another stream, without the prompts of the first `heldout` held-out rows.
/// UserError when the script knows too few other prompts.
std::vector<std::string> TrainRows(const std::string& script, const TaskOptions& options,
                                   int count);

}  // namespace temper::reward
