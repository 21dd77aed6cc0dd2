#pragma once
// The serving thread: pumps frames through the inbox, commits rows in groups, runs commands of the
// training thread.
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "learner/core/recorder.h"
#include "wire/server.h"

namespace temper::learner {

/// The clock of serving and of what waits for it.
Micros SteadyMicros();

/// Socket, database and inbox belong to the thread; everybody else talks to it by commands.
///
///   loop     takes               gives                       waits for                      woken
///   by serve    frames, commands    rows, acks, score requests  a frame, a command, a deadline
///   peers, the training thread
///
/// Rows are committed 64 at a time or after 5 ms, acknowledgements follow the commit; scoring and
/// batches don't wait for it: a rollout that trains was written before its step on the one
/// connection.
class Serving {
 public:
  struct Context {
    store::Trajectories& store;
    Inbox& inbox;
    Effects& effects;
  };
  using Command = std::function<void(Context&)>;

  Serving(std::unique_ptr<wire::Server> server, store::Trajectories store, Inbox::Options options);
  ~Serving();  // commits, says goodbye, ends the thread

  /// Runs `command` on the thread, after everything received before is committed. Throws what it
  /// throws.
  void Call(const Command& command);
  /// The same without waiting and without a commit; what it throws ends the serving.
  void Post(Command command);
  /// Opens `batch` after `prepare` (on the thread) and waits until its groups are complete.
  Batch NextBatch(std::int64_t batch, const Command& prepare);
  /// The same for the evaluation that `prepare` adds.
  std::vector<ScoredGroup> Evaluate(const Command& prepare);

 private:
  using Clock = std::chrono::steady_clock;

  void Run();
  void Serve();
  bool RunCommands();  // false: stop
  void PumpFrames();
  void Perform();
  void Commit();
  void Deliver();
  void LeavePeers(const std::string& reason, bool failed);
  void Wake();
  void Enqueue(Command command);
  Micros Now() const;

  static constexpr int kFramesATurn = 64;
  static constexpr Micros kGoodbyeMicros = 1'000'000;

  std::unique_ptr<wire::Server> server_;
  Recorder recorder_;
  std::unique_ptr<engine::FabricThread> fabric_;  // null: none
  Inbox inbox_;
  Effects effects_;
  std::int64_t wanted_batch_ = 0;
  bool wanted_evals_ = false;

  const int wake_fd_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Command> commands_;                   // mutex_
  std::optional<Batch> batch_;                     // mutex_
  std::optional<std::vector<ScoredGroup>> evals_;  // mutex_
  std::exception_ptr error_;                       // mutex_
  bool stop_ = false;                              // mutex_
  bool failed_ = false;                            // mutex_; the run ends with an error
  std::thread thread_;                             // last: starts when all else is there
};

}  // namespace temper::learner
