#pragma once
// Seconds between two points of a step.
#include <chrono>

namespace temper::learner {

class Stopwatch {
 public:
  /// Seconds since the last call, or since the beginning.
  double Lap() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    return seconds;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace temper::learner
