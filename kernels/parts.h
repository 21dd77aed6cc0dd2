#pragma once
// How work is cut into parts for the pool: by estimated time, never by the number of threads.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/thread_pool.h"

namespace temper::kernels {

// Nanoseconds. Waking a spinning worker costs about one microsecond, a sleeping one several.
inline constexpr std::int64_t kPartTime = 15000;
inline constexpr std::int64_t kSerialTime = 4000;

/// Estimated time of so many multiply-adds.
constexpr std::int64_t FmaTime(std::int64_t fma) { return fma / 40; }

/// Runs body(first, end) over pieces of [0, count), each of about kPartTime.
template <typename Body>
void ForPieces(ThreadPool& pool, std::int64_t count, std::int64_t picoseconds_each,
               const Body& body) {
  if (count <= 0) return;
  const std::int64_t time = count * picoseconds_each / 1000;
  if (time < kSerialTime || pool.threads() == 1) {
    CheckFloatingPointMode();
    body(std::int64_t{0}, count);
    return;
  }
  const std::int64_t parts = std::min(count, std::max<std::int64_t>(2, time / kPartTime));
  const struct {
    const Body& body;
    std::int64_t count, parts;
  } job{body, count, parts};
  // One captured pointer fits into std::function: nothing is allocated.
  pool.Run(static_cast<int>(parts),
           [&job](int i) { job.body(job.count * i / job.parts, job.count * (i + 1) / job.parts); });
}

/// Groups neighbouring tasks into parts of about kPartTime. Kept per thread, so that nothing is
/// allocated twice.
template <typename Task>
class TaskList {
 public:
  void Clear() {
    tasks_.clear();
    starts_.clear();
    total_ = 0;
    open_ = kPartTime;
  }
  void Add(const Task& task, std::int64_t time) {
    if (open_ >= kPartTime) {
      starts_.push_back(tasks_.size());
      open_ = 0;
    }
    tasks_.push_back(task);
    open_ += time;
    total_ += time;
  }
  template <typename Body>
  void Run(ThreadPool& pool, const Body& body) {
    if (total_ < kSerialTime || starts_.size() == 1 || pool.threads() == 1) {
      CheckFloatingPointMode();
      for (const Task& task : tasks_) body(task);
      return;
    }
    const struct {
      const TaskList& list;
      const Body& body;
    } job{*this, body};
    pool.Run(static_cast<int>(starts_.size()), [&job](int i) {
      const TaskList& list = job.list;
      const std::size_t part = static_cast<std::size_t>(i);
      const std::size_t end =
          part + 1 < list.starts_.size() ? list.starts_[part + 1] : list.tasks_.size();
      for (std::size_t t = list.starts_[part]; t < end; ++t) job.body(list.tasks_[t]);
    });
  }

 private:
  std::vector<Task> tasks_;
  std::vector<std::size_t> starts_;  // first task of each part
  std::int64_t total_ = 0;
  std::int64_t open_ = kPartTime;  // time in the last part
};

/// Aligned floats that grow and never shrink: one per thread and use.
class Scratch {
 public:
  ~Scratch();
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  /// At least `floats` floats, 64-byte aligned, contents undefined.
  float* Reserve(std::int64_t floats);

 private:
  float* data_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace temper::kernels
