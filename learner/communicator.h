#pragma once
// The ranks of one run: what they tell one another, each wait with a deadline that names who is
// missing.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "learner/core/rank_place.h"

namespace temper::learner {

/// The rank's own device: of cuda:N the ranks of a machine take N, N + 1, ...
std::string DeviceOf(const RankPlace& place, const std::string& device);

/// LibTorch's c10d: Gloo for "cpu", NCCL for "cuda:N". All ranks call the same methods in the same
/// order. Sums run in rank order: the same bits on every rank and in every run. Every method throws
/// MachineError naming the ranks that are gone or did not come; after that the object is of no more
/// use. On a device a lost rank ends the process instead, with the same line and exit code. A rank
/// that is alone has no sockets and nothing to wait for.
class Communicator {
 public:
  Communicator();  // alone
  /// Returns when all ranks are there. Throws MachineError as RankWatch.
  Communicator(const RankPlace& place, const std::string& device, double timeout_s);
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return place_.rank; }
  int size() const { return place_.size; }
  bool alone() const { return place_.size == 1; }
  const std::string& device() const { return device_; }
  /// Rank 0: owns the run's folder, its database and its peers.
  bool root() const { return place_.rank == 0; }
  /// What of a flat buffer is this rank's in the methods below.
  Shard shard() const { return {place_.rank, place_.size}; }

  /// The root's bytes to everyone. The others wait as long as the root lives: its rollouts and its
  /// disk have deadlines of their own.
  void FromRoot(std::string* bytes);
  /// Waits so for the root.
  void FollowRoot();
  /// Everyone's bytes, by rank, to everyone.
  std::vector<std::string> Gather(const std::string& mine);
  /// Adds up `values`, as many on every rank, for everyone.
  void Sum(std::vector<double>* values);
  /// This rank's shard of `values` [size] becomes the sum over the ranks; the rest stays.
  void ReduceScatter(float* values, std::int64_t size);
  /// Every rank's shard of `values` [size] to everyone.
  void AllGather(float* values, std::int64_t size);
  /// Every rank's shard ([width], from the shard's begin on) to the root's `whole` [size], which is
  /// null elsewhere.
  void ToRoot(const float* mine, std::int64_t size, float* whole);
  /// Throws MachineError unless `mine` is the same text on every rank: "`what` of rank 1 ...".
  void MustAgree(const std::string& what, const std::string& mine);

  /// Every rank is done: the root, which serves the others, returns when they are.
  void Finish();

  /// Seconds in the methods above since the last call.
  double TakeSeconds();

 private:
  struct Group;
  const RankPlace place_;
  const std::string device_ = "cpu";
  std::unique_ptr<Group> group_;  // null: alone
};

}  // namespace temper::learner
