#pragma once
// A run whose training is a hash chain of what it consumed: whatever is lost, repeated or taken in
// another order shows in its last link.
#include <cstdint>
#include <functional>
#include <string>

#include "wire/protocol.h"

namespace temper::bench {

struct StandInOptions {
  std::string folder;  // RUN is folder/run
  int steps = 6, groups_per_step = 2, group_size = 3, max_lag = 0;
  int save_steps = 2, keep = 1;
  // Controls: each breaks one promise.
  bool acknowledge_early = false;  // before the commit
  bool forgets_its_place = false;  // a resumed run begins one group before its checkpoint's next
};

struct StandInReport {
  bool fresh = false;          // nothing to resume from: begun anew
  std::string weights;         // the last link, 64 hex digits
  std::uint64_t consumed = 0;  // rollouts in the chain
};

/// Begins the run, or goes on from its newest checkpoint, to its last step. Real: inbox, recorder,
/// database, the checkpoint's and the versions' way to the disk, the messages. Stand-ins: the
/// actor, whose samples are a function of weights, group and sample and arrive in a seeded
/// disorder; the reward worker; training. `acknowledged` hears what the actor hears.
StandInReport StandInRun(const StandInOptions& options,
                         const std::function<void(const wire::RolloutId&)>& acknowledged);

/// The chain of what the database says was trained, in its order.
std::string ChainOf(const std::string& run);

}  // namespace temper::bench
