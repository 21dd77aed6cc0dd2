#include "store/history.h"

#include "configs/error.h"
#include "store/open.h"
#include "store/stored_rows.h"

namespace temper::store {

struct History::State {
  std::unique_ptr<Connection> db;
};

History::History(const std::string& run_dir)
    : state_(new State{OpenForReading(run_dir + "/trajectories.db")}) {
  Connection& db = *state_->db;
  Statement run = db.Prepare("SELECT config_json FROM run");
  if (!run.Step()) throw UserError(db.path() + ": the run row is missing");
  config_ = configs::ParseJson(run.GetText(0), db.path() + ": config_json");
  const Json grpo = config_.value("grpo", Json());
  const auto number = [&](const char* key) {
    return configs::GetInt(grpo.value(key, Json()), db.path() + ": config_json: grpo." + key, 1,
                           INT32_MAX);
  };
  groups_ = static_cast<int>(number("groups_per_step"));
  group_size_ = static_cast<int>(number("num_generations"));
  updates_ = number("num_iterations") * number("mini_batches");
  dynamic_ = grpo.value("dynamic_sampling", false);
  Statement last = db.Prepare("SELECT max(step) FROM step");
  if (last.Step() && !last.IsNull(0)) batches_ = last.GetInt(0) / updates_;
}

History::~History() = default;

std::vector<std::uint64_t> History::GroupsOf(std::int64_t batch) const {
  std::vector<std::uint64_t> groups;
  if (!dynamic_) {
    for (int i = 0; i < groups_; ++i)
      groups.push_back(static_cast<std::uint64_t>((batch - 1) * groups_ + i));
    return groups;
  }
  Statement s =
      state_->db->Prepare("SELECT DISTINCT grp FROM rollout WHERE trained_step = ? ORDER BY grp");
  s.Int(batch * updates_);
  while (s.Step()) groups.push_back(static_cast<std::uint64_t>(s.GetInt(0)));
  return groups;
}

std::vector<History::Group> History::Batch(std::int64_t batch) const {
  Connection& db = *state_->db;
  const auto missing = [&](const std::string& what) {
    return UserError(db.path() + ": step " + std::to_string(batch * updates_) + ": " + what +
                     "; a run can be trained from while its rollouts are there (runs prune "
                     "removes them)");
  };
  if (batch > batches_) throw missing("it was not trained");
  std::vector<Group> groups;
  for (const std::uint64_t grp : GroupsOf(batch)) {
    std::optional<GroupRow> row = ReadGroup(db, grp);
    if (!row) throw missing("g" + std::to_string(grp) + " is not there");
    Group& group = groups.emplace_back(Group{std::move(*row), ReadLive(db, grp), {}});
    for (const RolloutRow& rollout : group.live) group.parts.push_back(ReadParts(db, rollout));
  }
  if (static_cast<int>(groups.size()) != groups_) {
    throw missing(std::to_string(groups.size()) + " of " + std::to_string(groups_) +
                  " groups are there");
  }
  return groups;
}

}  // namespace temper::store
