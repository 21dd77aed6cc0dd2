#pragma once
// Rows of the database as structs, on any connection.
#include <cstdint>
#include <optional>
#include <vector>

#include "store/sqlite.h"
#include "store/trajectories.h"

namespace temper::store {

/// By sample: not dropped, or dropped for its reward. Throws MachineError where a row's checksum
/// does not hold.
std::vector<RolloutRow> ReadLive(Connection& db, std::uint64_t grp);
std::vector<RewardPart> ReadParts(Connection& db, const RolloutRow& row);  // by name
std::optional<GroupRow> ReadGroup(Connection& db, std::uint64_t grp);

}  // namespace temper::store
