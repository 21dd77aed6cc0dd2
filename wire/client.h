#pragma once
// A peer's DEALER socket: it connects in the background, and knows when the learner refuses it.
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "wire/message.h"
#include "wire/socket.h"

namespace temper::wire {

/// A peer's side.
class Client : public Socket {
 public:
  /// Connects (again and again) in the background. `keys`: a peer's key file, or the learner's own.
  explicit Client(const std::string& endpoint, const std::string& keys = "");

  /// Sends, or queues while the learner is away or slow. The queue is bounded: false = full,
  /// nothing was taken.
  bool Send(const Message& message);
  void Flush();
  bool queued() const { return !queue_.empty(); }
  /// Forgets what was queued: after a reconnect only a hello makes sense.
  void Clear() { queue_.clear(); }
  void Linger(int ms);
  /// Why this peer will never come in, or "": the learner's list does not have its key, it speaks
  /// another mechanism, or none ever succeeded and kHandshakeFailures failed within
  /// kHandshakeLimit.
  const std::string& refused() const { return refused_; }

  static constexpr std::size_t kMaxQueued = 1024;
  static constexpr std::int64_t kHandshakeLimit = 8'000'000;  // microseconds
  static constexpr int kHandshakeFailures = 6;                // a silent learner gives two

 private:
  void OnHandshake(Handshakes::Event event, std::int64_t now_us) override;
  void OnTime(std::int64_t now_us) override;

  const std::string endpoint_, keys_path_;
  std::string public_key_, refused_, failure_;
  std::int64_t failing_since_ = 0;  // 0 = no try has failed
  int failures_ = 0;                // since then
  bool known_ = false;              // a handshake succeeded before
  std::deque<std::vector<Bytes>> queue_;
};

}  // namespace temper::wire
