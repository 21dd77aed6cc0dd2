#pragma once
// A small pool with fixed partitions: which thread runs a part never changes a result.
#include <functional>
#include <memory>

namespace temper::kernels {

class ThreadPool {
 public:
  /// threads >= 1; 1 runs everything on the calling thread. Workers check the default MXCSR, spin
  /// for a few microseconds after work and then sleep. No OpenMP.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  /// Runs part(i) for every i in [0, parts) and returns when all are done. Parts must be
  /// independent. The calling thread takes part. Each thread begins with its own run of
  /// neighbouring parts (memory is read in order) and ends with what others have left; results may
  /// not depend on who claims one. Not reentrant. An exception of a part is rethrown here after all
  /// have ended.
  void Run(int parts, const std::function<void(int)>& part);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::kernels
