#pragma once
// What the root alone knows and every rank needs: the groups of a batch, where a run stands.
#include <string>

#include "learner/communicator.h"
#include "learner/core/checkpoint_folder.h"
#include "learner/core/service.h"

namespace temper::learner {

/// The root's groups and next_group to everyone: what a step trains on, not what is logged or
/// stored of it (reward parts, texts, actors; groups that were passed over).
void ShareBatch(Communicator& ranks, Batch* batch);

/// The root's checkpoint to everyone, without its config: every rank reads the same folder.
void ShareCheckpoint(Communicator& ranks, FoundCheckpoint* found);

/// Throws MachineError naming the first rank whose program or settings are not the root's, and what
/// differs.
void MustRunTheSame(Communicator& ranks, const configs::Config& config);

}  // namespace temper::learner
