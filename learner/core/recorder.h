#pragma once
// Rows to the database in groups, and what may be acknowledged once they are durable.
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "learner/core/inbox.h"
#include "store/trajectories.h"

namespace temper::learner {

/// Rows are committed kCommitRows at a time or after kCommitMicros. An acknowledgement leaves this
/// class only behind the commit of everything that was written before it.
class Recorder {
 public:
  explicit Recorder(store::Trajectories store) : store_(std::move(store)) {}

  void Write(StoreWrite&& write, Micros now, std::int64_t wall_ms);
  void Acknowledge(const std::vector<std::pair<std::string, wire::RolloutId>>& acks);
  bool Due(Micros now) const;
  /// Until the open transaction is due; `otherwise` where none is open.
  Micros DueIn(Micros now, Micros otherwise) const;
  /// Commits what is open. Gives what each peer is told. Throws MachineError: then nothing may be
  /// told any more.
  std::map<std::string, wire::Ack> Commit();
  store::Trajectories& store() { return store_; }

  static constexpr int kCommitRows = 64;
  static constexpr Micros kCommitMicros = 5000;

 private:
  store::Trajectories store_;
  bool in_transaction_ = false;
  int rows_ = 0;  // in the open transaction
  Micros oldest_row_ = 0;
  std::vector<std::pair<std::string, wire::RolloutId>> acks_;
};

}  // namespace temper::learner
