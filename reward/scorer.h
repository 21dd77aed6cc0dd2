#pragma once
// A thread that scores requests one after the other while another thread keeps the connection
// alive.
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "reward/host.h"
#include "wire/protocol.h"

namespace temper::reward {

/// Answers of another session must not be sent: each carries the one it was asked in.
struct Scored {
  std::uint64_t session = 0;
  wire::ScoreResult result;
};

class Scorer {
 public:
  /// Owns the host from now on. `event_fd` is written to when an answer or a failure is there.
  Scorer(RewardHost host, std::uint64_t session, int event_fd);
  /// Waits for the request under way (at most its samples' deadlines), forgets the others.
  ~Scorer();
  Scorer(const Scorer&) = delete;

  void Add(wire::ScoreRequest request);
  /// Requests added from now on are scored by these texts.
  void Use(ScriptTexts files);
  /// The next answer, if there is one. Rethrows what ended the thread.
  std::optional<Scored> Take();

 private:
  void Run();

  using Work = std::variant<wire::ScoreRequest, ScriptTexts>;

  RewardHost host_;
  const std::uint64_t session_;
  const int event_fd_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> work_;
  std::deque<Scored> answers_;
  std::exception_ptr failure_;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses all of the above
};

/// The pure part: what a request asks of the host, and its answer in the request's order.
wire::ScoreResult Answer(RewardHost& host, wire::ScoreRequest request);

}  // namespace temper::reward
