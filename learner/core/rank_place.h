#pragma once
// Which of a run's learner processes this one is: torchrun's environment variables.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace temper::learner {

struct RankPlace {
  int rank = 0, size = 1;              // RANK, WORLD_SIZE
  int local_rank = 0, local_size = 1;  // LOCAL_RANK, LOCAL_WORLD_SIZE: on this machine
  std::string address;                 // MASTER_ADDR: where rank 0 serves the store
  int port = 0;                        // MASTER_PORT
  bool agent_store = false;  // TORCHELASTIC_USE_AGENT_STORE: torchrun serves it, nobody else does

  /// "rank 1 of 4"
  std::string Name() const;
};

/// Without WORLD_SIZE, and with 1, the process is alone: nothing else is read. Throws UserError
/// naming the variable that is missing or wrong.
RankPlace ReadRankPlace();

/// The variables that tell a process so, for those who start one. Of a process that is alone
/// WORLD_SIZE too: a shell may have had another.
std::vector<std::pair<std::string, std::string>> EnvironmentOf(const RankPlace& place);

/// A TCP port of this machine's loopback that was free a moment ago. Throws MachineError.
int FreePort();

/// The stretch of a flat buffer that a rank keeps the optimizer's state of.
struct Shard {
  int rank = 0, ranks = 1;
  /// Equal but for the last ones, which may be shorter or empty; whole cache lines of floats.
  std::int64_t width(std::int64_t size) const;
  std::int64_t begin(std::int64_t size) const;
  std::int64_t end(std::int64_t size) const;
};

}  // namespace temper::learner
