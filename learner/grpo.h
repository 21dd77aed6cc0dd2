#pragma once
// `temper-learner grpo`: batches of scored rollouts in, optimizer steps and published weights out.
#include <string>
#include <vector>

#include "configs/config.h"
#include "learner/communicator.h"

namespace temper::learner {

/// Runs config.grpo to max_steps and returns the exit code 0. All of `ranks` call it with the same
/// config; the root alone serves and writes, the others share its steps' work. Serves actors and
/// reward workers at `bind` ("" = the config's wire.bind, or a socket in output_dir). Writes
/// RUN/config.json, metrics.jsonl, tb/, trajectories.db, endpoint, checkpoints/ and versions/; a
/// JSON line of metrics to stdout every logging step, progress to stderr.
///
///   loop    takes                gives                   waits for                       woken by
///   serve   frames               stored, scored rows     a frame or a deadline           actors,
///   reward workers train   whole groups         published weights       the groups of its step
///   serve
///
/// Throws UserError (output_dir exists without resume, no valid checkpoint, data, model),
/// MachineError (I/O, peers silent).
/// `zygote_argv` starts a zygote (reward/zygote.h): temper's, which has no LibTorch to load.
/// `from`: a run whose stored rollouts are trained in the place of new ones ("" = actors').
int RunGrpo(const configs::Config& config, Communicator& ranks, const std::string& bind,
            const std::vector<std::string>& zygote_argv, const std::string& from = "");

}  // namespace temper::learner
