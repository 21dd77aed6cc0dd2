#pragma once
// A folder of its own for each test and rows that look like a run's.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "store/trajectories.h"

namespace temper::store {

/// Removed with everything in it.
class Folder {
 public:
  Folder() {
    char name[] = "/tmp/temper_store_XXXXXX";
    path_ = mkdtemp(name);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline Trajectories::RunInfo SomeRun() { return {"tiny", "0.1.0", "strict", "{}", 1234}; }

inline GroupRow SomeGroup(std::uint64_t grp) {
  GroupRow group;
  group.grp = grp;
  group.prompt_json = "\"17 + 25 =\"";
  group.row_json = "{\"prompt\":\"17 + 25 =\",\"answer\":42}";
  group.prompt_ids = {1, 17, 25};
  group.granted_version = 3;
  group.granted_step = 7;
  return group;
}

inline RolloutRow SomeRollout(std::uint64_t grp, std::uint32_t sample, int attempt = 0) {
  RolloutRow row;
  row.grp = grp;
  row.sample = sample;
  row.attempt = attempt;
  row.version = row.version_last = 3;
  row.seed = 99;
  row.state = "received";
  row.actor = "a1";
  row.text = "42";
  row.ids = {4, -2, 2147483647};
  row.logp = {-0.25f, -1.5f, -3e-38f};
  row.loss_mask = {1, 0, 1};
  row.finish_reason = "stop";
  row.received_ms = 5678;
  return row;
}

inline std::vector<Json> Rows(const std::string& path, const std::string& sql) {
  std::vector<Json> rows;
  Reader(path).Query(sql, [&](const Json& row) { rows.push_back(row); });
  return rows;
}

}  // namespace temper::store
