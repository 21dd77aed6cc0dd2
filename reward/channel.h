#pragma once
// One function's sandbox, kept warm and replaced when it dies, with a deadline for every answer.
#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "reward/backend.h"
#include "reward/frames.h"
#include "reward/sandbox.h"
#include "reward/zygote.h"

namespace temper::reward {

class Channel : public Backend {
 public:
  Channel(Zygote& zygote, Job job, double start_timeout_s);
  Channel(const Channel&) = delete;
  ~Channel() override;

  /// One outcome a sample, in order. A sample's clock starts when the one before it was answered;
  /// score_group() has the time of all of them, and its failure is everybody's.
  std::vector<Outcome> Score(std::span<const SampleInput> samples) override;
  /// Runs the chunk only: ok, or why no sample can be scored.
  Outcome Check() override;
  /// Asks a task script for rows (reward/script.h); its clock is `count` samples'.
  MadeRows Prompts(const RowsRequest& request);
  /// The script's global `cases`, an object a row; none if there is none.
  MadeRows Cases();

  const std::string& missing_isolation() const { return missing_; }
  int spawned() const { return spawned_; }

 private:
  using Clock = std::chrono::steady_clock;
  enum class Wait { kFrame, kDeadline, kEnd };

  /// A sandbox that has run the chunk, or why there is none.
  Outcome Start();
  void Spawn();
  /// How the new sandbox ended, "" = it lives.
  std::string TrySpawn();
  /// Ends the sandbox, if there is one; says how it ended.
  std::string Stop();
  /// Sends what is unsent and reads until a whole frame is there (its body in *body, valid until
  /// the next call), the deadline passes, or the sandbox ends. FrameError for a frame that cannot
  /// be.
  Wait Next(Clock::time_point deadline, std::string_view* body, std::size_t awaited = 1,
            std::uint32_t limit = kMaxAnswerFrame);
  /// Sleeps for as long as so many answers are likely to take.
  void Nap(std::size_t awaited, std::chrono::microseconds left);
  /// Waits for one answer that `read` understands, the first of `awaited`. Another end stops the
  /// sandbox and is returned.
  template <typename Read>
  std::optional<Outcome> Answer(double seconds, const Read& read, std::size_t awaited = 1,
                                std::uint32_t limit = kMaxAnswerFrame);
  bool SendSome();
  bool ReceiveSome();
  /// The outcomes that come, at most `count`; the last is the failure that ended the sandbox if
  /// fewer came.
  void Collect(std::size_t count, std::vector<Outcome>* outcomes);
  double Seconds(std::size_t samples) const;
  Outcome Failure(Status status, const std::string& message, Clock::time_point since) const;

  Zygote& zygote_;
  Job job_;
  double start_timeout_s_;
  Sandbox sandbox_;
  std::string unsent_, received_;
  std::size_t sent_ = 0, taken_ = 0;
  std::string missing_;
  Loaded loaded_;
  int spawned_ = 0;
  double micros_ = 2;  // what a sample took of late
};

}  // namespace temper::reward
