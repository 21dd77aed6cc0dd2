// What a run needs to go on: one surviving history, and the rows that are still alive in it.
#include "configs/error.h"
#include "store/stored_rows.h"
#include "store/writer.h"

namespace temper::store {

std::int64_t Trajectories::Resume(std::int64_t step, std::optional<std::uint32_t> keep_version,
                                  std::optional<std::uint64_t> first_group) {
  state_->Atomically([&] {
    Connection& db = state_->db;
    db.Prepare("UPDATE run SET incarnation = incarnation + 1").Run();
    db.Prepare(
          "UPDATE rollout SET state = 'scored', advantage = NULL, trained_step = NULL, lag = NULL "
          "WHERE trained_step > ?")
        .Int(step)
        .Run();
    if (first_group) {
      db.Prepare(
            "UPDATE rollout SET state = 'scored', reason = '' "
            "WHERE state = 'dropped' AND reason = 'zero_std' AND grp >= ?")
          .Unsigned(*first_group)
          .Run();
    }
    db.Prepare("DELETE FROM step WHERE step > ?").Int(step).Run();
    db.Prepare("DELETE FROM metric WHERE step > ?").Int(step).Run();
    if (!keep_version) return;
    // A rollout is lost when any of its tokens came from weights that this history never publishes.
    db.Prepare(
          "UPDATE rollout SET state = 'dropped', reason = 'version_lost' "
          "WHERE (state IN ('received', 'scored') OR (reason = status AND status <> '')) "
          "AND max(version, version_last) > ?")
        .Int(*keep_version)
        .Run();
  });
  return incarnation();
}

std::vector<RolloutRow> Trajectories::LiveRollouts(std::uint64_t grp) {
  return ReadLive(state_->db, grp);
}

std::vector<RewardPart> Trajectories::Parts(const RolloutRow& row) {
  return ReadParts(state_->db, row);
}

std::optional<GroupRow> Trajectories::Group(std::uint64_t grp) {
  return ReadGroup(state_->db, grp);
}

std::optional<std::uint64_t> Trajectories::LastGroup() {
  Statement s = state_->db.Prepare("SELECT max(grp) FROM prompt_group");
  s.Step();
  if (s.IsNull(0)) return std::nullopt;
  return static_cast<std::uint64_t>(s.GetInt(0));
}

std::int64_t Trajectories::incarnation() {
  Statement s = state_->db.Prepare("SELECT incarnation FROM run");
  if (!s.Step()) throw MachineError(state_->db.path() + ": the run row is missing");
  return s.GetInt(0);
}

}  // namespace temper::store
