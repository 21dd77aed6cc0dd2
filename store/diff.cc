#include "store/diff.h"

#include <cstring>
#include <filesystem>
#include <memory>
#include <vector>

#include "store/open.h"
#include "store/trajectories.h"

namespace temper::store {
namespace {

/// One table of both runs, walked together by its key.
struct Walk {
  const char* sql;  // key columns first
  int keys;
  std::vector<const char*> columns;  // compared ones, behind the keys
  std::string (*name)(Statement& row);
};

std::string RolloutName(Statement& row) {
  return "g" + std::to_string(row.GetInt(0)) + ".s" + std::to_string(row.GetInt(1));
}
std::string StepName(Statement& row) { return "step " + std::to_string(row.GetInt(0)); }

const Walk kRollouts = {
    "SELECT grp, sample, g.prompt_ids, version, seed, ids, logp, versions, loss_mask, "
    "finish_reason, text, score, status, advantage, trained_step, lag FROM rollout JOIN "
    "prompt_group g USING (grp) WHERE state <> 'dropped' ORDER BY grp, sample",
    2,
    {"prompt_ids", "version", "seed", "ids", "logp", "versions", "loss_mask", "finish_reason",
     "text", "score", "status", "advantage", "trained_step", "lag"},
    RolloutName};
const Walk kSteps = {"SELECT step, version, loss, reward_mean FROM step ORDER BY step",
                     1,
                     {"version", "loss", "reward_mean"},
                     StepName};

class Comparison {
 public:
  Comparison(Connection& a, Connection& b, Json* first) : a_(a), b_(b), first_(first) {}

  /// True if nothing differs.
  bool Run(const Walk& walk, Json* out) {
    Statement a = a_.Prepare(walk.sql), b = b_.Prepare(walk.sql);
    bool more_a = a.Step(), more_b = b.Step();
    std::int64_t both = 0, only_a = 0, only_b = 0;
    Json differ = Json::object();
    while (more_a || more_b) {
      const int order = !more_a ? 1 : !more_b ? -1 : Order(a, b, walk.keys);
      if (order == 0) {
        ++both;
        for (std::size_t i = 0; i < walk.columns.size(); ++i) {
          const int column = walk.keys + static_cast<int>(i);
          if (Same(a, b, column)) continue;
          const char* const name = walk.columns[i];
          differ[name] = differ.value(name, 0) + 1;
          Note(walk.name(a) + ": " + name + ": " + Show(a, column) + " and " + Show(b, column));
        }
      } else {
        ++(order < 0 ? only_a : only_b);
        Note(order < 0 ? walk.name(a) + ": only in the first"
                       : walk.name(b) + ": only in the second");
      }
      if (order <= 0) more_a = a.Step();
      if (order >= 0) more_b = b.Step();
    }
    *out = Json{{"both", both}, {"only_a", only_a}, {"only_b", only_b}, {"differ", differ}};
    return only_a == 0 && only_b == 0 && differ.empty();
  }

 private:
  static int Order(Statement& a, Statement& b, int keys) {
    for (int k = 0; k < keys; ++k) {
      if (a.GetInt(k) != b.GetInt(k)) return a.GetInt(k) < b.GetInt(k) ? -1 : 1;
    }
    return 0;
  }
  static bool Same(Statement& a, Statement& b, int column) {
    if (a.IsNull(column) || b.IsNull(column)) return a.IsNull(column) == b.IsNull(column);
    // SQLite spells a number with 15 digits, so its bits come first; a blob or a text is its bytes.
    return SameReal(a, b, column) && a.GetBlob(column) == b.GetBlob(column);
  }
  static bool SameReal(Statement& a, Statement& b, int column) {
    const double x = a.GetReal(column), y = b.GetReal(column);
    return std::memcmp(&x, &y, sizeof x) == 0;
  }
  static std::string Show(Statement& s, int column) {
    if (s.IsNull(column)) return "null";
    const std::string_view bytes = s.GetBlob(column);
    for (const char c : bytes.substr(0, 64)) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 0x20 || byte >= 0x7F) return std::to_string(bytes.size()) + " bytes";
    }
    return bytes.size() > 64 ? std::string(bytes.substr(0, 61)) + "..." : std::string(bytes);
  }
  void Note(const std::string& what) {
    if (first_->size() < kMaxDifferences) first_->push_back(what);
  }

  Connection &a_, &b_;
  Json* first_;
};

}  // namespace

Json DiffRuns(const std::string& run_a, const std::string& run_b) {
  const auto open = [](const std::string& run_dir) {
    auto db = OpenForReading((std::filesystem::path(run_dir) / "trajectories.db").string());
    db->Execute("BEGIN");
    return db;
  };
  const auto a = open(run_a), b = open(run_b);
  Json first = Json::array(), rollouts, steps;
  Comparison comparison(*a, *b, &first);
  const bool same_rollouts = comparison.Run(kRollouts, &rollouts);
  const bool same_steps = comparison.Run(kSteps, &steps);
  return Json{{"equal", same_rollouts && same_steps},
              {"rollouts", rollouts},
              {"steps", steps},
              {"first", first}};
}

}  // namespace temper::store
