#pragma once
// What a run trained, step by step, for whoever trains from it again.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "configs/json.h"
#include "store/trajectories.h"

namespace temper::store {

/// Read-only; a run may go on meanwhile.
class History {
 public:
  /// Throws UserError for a missing, foreign or newer RUN/trajectories.db.
  explicit History(const std::string& run_dir);
  ~History();

  const Json& config() const { return config_; }  // the run's, resolved
  /// Batches trained so far; each has `groups` groups, the last of its `updates` steps names them.
  std::int64_t batches() const { return batches_; }
  int groups() const { return groups_; }
  int group_size() const { return group_size_; }

  struct Group {
    GroupRow row;
    std::vector<RolloutRow> live;                // by sample: trained, or dropped for its reward
    std::vector<std::vector<RewardPart>> parts;  // of each
  };
  /// The groups of `batch` (from 1) in the order in which they were trained. Throws UserError where
  /// the database does not have them all (pruned, or still to come).
  std::vector<Group> Batch(std::int64_t batch) const;

 private:
  std::vector<std::uint64_t> GroupsOf(std::int64_t batch) const;

  struct State;
  std::unique_ptr<State> state_;
  Json config_;
  std::int64_t batches_ = 0, updates_ = 1;
  int groups_ = 0, group_size_ = 0;
  bool dynamic_ = false;
};

}  // namespace temper::store
