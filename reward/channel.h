#pragma once
// One function's sandbox, kept warm and replaced when it dies, with a deadline for every answer.
#include <chrono>
#include <span>
#include <string>
#include <vector>

#include "reward/sandbox.h"
#include "reward/zygote.h"

namespace temper::reward {

class Channel {
 public:
  Channel(Zygote& zygote, Job job, double start_timeout_s);
  Channel(const Channel&) = delete;
  ~Channel();

  /// One outcome a sample, in order. A sample's clock starts when the one before it was answered.
  std::vector<Outcome> Score(std::span<const SampleInput> samples);
  /// Runs the chunk only.
  Outcome Check();

  const std::string& missing_isolation() const { return missing_; }
  int spawned() const { return spawned_; }

 private:
  using Clock = std::chrono::steady_clock;
  enum class Wait { kFrame, kDeadline, kEnd };

  void Start();
  /// Ends the sandbox, if there is one; says how it ended.
  std::string Stop();
  /// Sends what is unsent and reads until a whole frame is there (its body in *body, valid until
  /// the next call), the deadline passes, or the sandbox ends. FrameError for a frame that cannot
  /// be.
  Wait Next(Clock::time_point deadline, std::string_view* body);
  bool SendSome();
  bool ReceiveSome();
  /// The outcomes that come, at most `count`; the last is the failure that ended the sandbox if
  /// fewer came.
  void Collect(std::size_t count, std::vector<Outcome>* outcomes);
  Outcome Failure(Status status, const std::string& message, Clock::time_point since) const;

  Zygote& zygote_;
  Job job_;
  double start_timeout_s_;
  Sandbox sandbox_;
  std::string unsent_, received_;
  std::size_t sent_ = 0, taken_ = 0;
  std::string missing_;
  int spawned_ = 0;
};

}  // namespace temper::reward
