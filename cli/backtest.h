#pragma once
// A reward on the rollouts of a past run, beside the rewards they had.
#include <array>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "configs/json.h"
#include "reward/host.h"

namespace temper::cli {

struct BacktestOptions {
  std::string run_dir;                         // with trajectories.db
  reward::HostOptions host;                    // one function: the new one
  std::optional<reward::HostOptions> against;  // one function; none: the stored scores
  std::int64_t limit = 0;                      // groups, 0 = all
};

struct Tested {
  std::string name, text, prompt, answer, message;  // name: g41.s3@v17
  std::optional<double> before, after;
  std::string status_before, status_after;
  double advantage_before = 0, advantage_after = 0;  // (score - mean) / (std + 1e-4) in the group
};

struct BacktestGroup {
  std::uint64_t grp = 0;
  std::int64_t pairs = 0, flipped = 0;  // pairs whose order the other way round
  std::int64_t tied = 0;                // pairs that differ in one and not in the other
};

struct Backtest {
  std::vector<Tested> rollouts;
  std::vector<BacktestGroup> groups;
  std::map<std::string, std::int64_t> statuses_before, statuses_after;
  double seconds = 0;
};

/// `data.answer_column` of a run, "" = none.
std::string AnswerColumnOf(const std::string& run_dir);

/// Reads the database, scores group by group. Rollouts that never had an answer of a reward are
/// scored too; duplicates are left out.
Backtest RunBacktest(const BacktestOptions& options);

/// {rollouts, groups, mean_before, mean_after, statuses_before, statuses_after, changed,
/// pairs, pairs_flipped, groups_flipped, advantage_sign_changed, correlation, seconds}
Json BacktestSummary(const Backtest& test);

/// A page without anything from outside.
std::string BacktestPage(const Backtest& test, const std::string& title, const std::string& before,
                         const std::string& after);

}  // namespace temper::cli
