#pragma once
// One learner, of one rank or several, with its local actors and reward workers: started,
// restarted, and ended together.
#include <sys/stat.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "cli/child.h"
#include "cli/learner_ranks.h"
#include "configs/config.h"

namespace temper::cli {

/// A peer that may die and come back.
struct Peer {
  std::string name;  // a1, w1
  Arguments args;    // of this program, without the endpoint
  std::string log;
  std::optional<Child> child;
  bool finished = false;  // told goodbye
  int quick_deaths = 0;   // in a row, each within 3 s of its start
  std::string death;      // of the one before: "exit 3: ..."
  std::chrono::steady_clock::time_point start_at{};
};

/// SIGINT and SIGTERM end the learner in order (its checkpoint stands), a second one ends
/// everything at once. A dead actor or reward worker is started again, with a growing pause; after
/// 8 quick deaths in a row, or an exit 2, the run ends.
class Supervisor {
 public:
  /// `learner_args` follow "temper-learner".
  Supervisor(const configs::Config& config, Arguments learner_args);
  /// Returns the learner's exit code. Throws UserError or MachineError where a peer or a signal
  /// ended the run.
  int Run();

 private:
  bool EndpointReady();
  void Tend(Peer* peer);
  void Start(Peer* peer);
  void ForwardSignals();
  void EndPeers(bool goodbye);
  [[noreturn]] void GiveUp(const Peer& peer, bool user);

  const configs::Config& config_;
  const std::string endpoint_path_;
  const std::optional<struct stat> endpoint_before_;  // a resumed run has an old file
  std::string endpoint_;
  std::vector<Peer> peers_;
  int signals_seen_ = 0;
  LearnerRanks learner_;  // last: the first to be killed if something throws
};

}  // namespace temper::cli
