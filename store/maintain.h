#pragma once
// A database copied while its run goes on, and one made smaller while it does not.
#include <cstdint>
#include <string>

#include "configs/json.h"

namespace temper::store {

/// Writes the state of one moment to OUT, which must not exist and appears whole: commits that come
/// meanwhile are not in it. Takes no lock that stops the writer. {"bytes", "rollouts", "groups"}.
/// Throws UserError for a wrong OUT, MachineError for I/O.
Json BackupRun(const std::string& run_dir, const std::string& out);

struct PruneOptions {
  std::int64_t before_step = 0;  // groups of the steps below it
  bool dry_run = false;
};

/// Removes the prompts, rollouts and parts of groups whose every rollout was trained in a step
/// below before_step or dropped, gives the space back to the file system; steps and metrics stay.
/// Refuses (UserError) steps that a resume from the newest checkpoint would need, MachineError
/// while the run is written. {"groups", "rollouts", "parts", "bytes_before", "bytes_after"}.
Json PruneRun(const std::string& run_dir, const PruneOptions& options);

}  // namespace temper::store
