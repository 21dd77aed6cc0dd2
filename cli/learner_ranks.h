#pragma once
// The learner's processes: one a rank, started together, ended together.
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "cli/child.h"

namespace temper::cli {

class LearnerRanks {
 public:
  /// Starts `count` processes `temper-learner ARGS`; more than one find one another on a port of
  /// this machine. Rank 0 has our stdout and stderr; of the others only what the one that ended the
  /// run said last is told. Throws MachineError.
  LearnerRanks(int count, const Arguments& args);
  ~LearnerRanks();

  /// Waits without blocking. The exit code once all have ended: of the first that ended badly, as
  /// Child gives it. Then the others have kPatience to say who they miss, and are killed.
  std::optional<int> Ended();
  void Signal(int signal) const;
  /// Who gave Ended() its code: "the learner", "rank 1 of the learner".
  std::string culprit() const;

 private:
  static constexpr auto kPatience = std::chrono::seconds(5);
  std::string LogOf(std::size_t rank) const;

  std::string folder_;  // of the logs
  std::vector<Child> ranks_;
  std::optional<std::size_t> first_bad_;
  std::optional<std::chrono::steady_clock::time_point> first_end_;
  bool told_ = false;
};

}  // namespace temper::cli
