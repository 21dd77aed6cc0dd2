#pragma once
// Who among the ranks still lives, and how far each has come: a pulse of every rank in the store.
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "learner/core/rank_place.h"

namespace temper::learner {

/// Each rank writes its pulse and the number of the exchange that it has come to, and reads the
/// others', kPulsesASecond times a second on a thread of its own: the training thread never waits
/// for the store. Time is counted in own pulses, so that a machine that slept misses nobody.
class RankWatch {
 public:
  static constexpr int kPulsesASecond = 4;
  /// Connects to the store, or serves it; returns when every rank has come. Throws MachineError:
  /// the port is in use, ranks that did not come within `timeout_s`.
  RankWatch(const RankPlace& place, double timeout_s);
  ~RankWatch();

  /// This rank has come to exchange `number`.
  void Arrive(std::int64_t number);
  /// Ranks without a pulse for `seconds`, in words: "rank 1 is gone"; "": all live.
  std::string Silent(double seconds) const;
  /// After an exchange failed or took too long: waits until silence shows, then says which ranks
  /// are gone or, where all live, which have not come to exchange `number`. "": neither.
  std::string Missing(std::int64_t number) const;

  struct Shared;  // with the thread, which may outlive this object where the store hangs
  const Shared& shared() const { return *shared_; }

 private:
  std::shared_ptr<Shared> shared_;
};

}  // namespace temper::learner
