#pragma once
// How far a long job is: done of total, rate and time left, on stderr.
#include <chrono>
#include <cstdint>
#include <string>

namespace temper::learner {

/// On a terminal one line that is redrawn; elsewhere a plain line at most every 5 seconds. One
/// thread.
class Progress {
 public:
  /// "sft: step 40/300, 8.1 steps/s, 32 s left, loss 1.83". `start`: what was done before this
  /// process.
  Progress(std::string what, std::string unit, std::int64_t total, std::int64_t start = 0);
  ~Progress();  // ends the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `note` ends the line, e.g. "loss 1.83". Cheap to call for every step.
  void At(std::int64_t done, const std::string& note = "");

 private:
  using Clock = std::chrono::steady_clock;
  std::string Line(std::int64_t done, const std::string& note) const;

  const std::string what_, unit_;
  const std::int64_t total_, start_;
  const bool terminal_;
  const Clock::time_point began_ = Clock::now();
  Clock::time_point shown_{};
  std::int64_t last_shown_ = -1;
  std::size_t width_ = 0;  // of the line on the terminal
};

/// "850 ms", "32 s", "4 min 10 s", "2 h 5 min".
std::string Duration(double seconds);

}  // namespace temper::learner
