#pragma once
// Whether what a run's folder holds is what was written.
#include <string>

#include "configs/json.h"

namespace temper::store {

/// Reads everything of RUN/trajectories.db (one snapshot; a run may go on meanwhile) and every
/// finished checkpoint:
///
///   database     SQLite's integrity_check; the checksum of every rollout; lengths of its arrays; a
///                group for each rollout, a rollout for each part; one live attempt a sample;
///                states that fit their columns; the steps that rollouts were trained in
///   checkpoints  size and SHA-256 of each file that a manifest names
///
/// {"ok", "rollouts", "groups", "parts", "steps", "checkpoints", "problems": [text], "more"}: at
/// most kMaxProblems are listed, `more` counts the others. Throws UserError for a missing, foreign
/// or newer database.
Json VerifyRun(const std::string& run_dir);

constexpr std::size_t kMaxProblems = 50;

}  // namespace temper::store
