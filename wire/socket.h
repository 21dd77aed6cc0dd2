#pragma once
// ZeroMQ sockets of the learner (ROUTER) and its peers (DEALER): nothing blocks, nothing is dropped
// in silence.
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "wire/endpoint.h"
#include "wire/gate.h"
#include "wire/handshakes.h"
#include "wire/message.h"
#include "wire/refusals.h"

namespace temper::wire {

/// What arrived: a message, or why the frames are none.
struct Incoming {
  std::string peer;  // Server only: ZeroMQ's identity of the connection
  Message message;
  std::string error;  // "" = message is valid
};

/// Owns one context and one socket. Not thread-safe.
class Socket {
 public:
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  /// Waits at most `timeout_us` until a frame is there, or `fd` (-1 = none) is readable, or, with
  /// `or_writable`, a frame can be sent. False: nothing happened. Returns early for a signal.
  bool Wait(std::int64_t timeout_us, int fd = -1, bool or_writable = false);
  /// Takes one message without waiting. False: none is there.
  bool Receive(Incoming* incoming);
  /// Handshakes that were refused, and what to tell the log of them.
  Refusals& refusals() { return refusals_; }

 protected:
  Socket(int type, bool ipv6);
  virtual ~Socket();
  virtual void OnHandshake(Handshakes::Event event, std::int64_t now_us) = 0;
  virtual void OnTime(std::int64_t) {}
  void SetText(int option, const std::string& value);
  enum class Sent { kDone, kFull, kGone };
  /// `peer` "" for a DEALER.
  Sent TrySend(const std::string& peer, const std::vector<Bytes>& frames);
  void SetOption(int option, int value);
  [[noreturn]] void Fail(const std::string& what) const;
  void* context_ = nullptr;
  void* handle_ = nullptr;
  std::unique_ptr<Gate> gate_;
  Refusals refusals_;

 private:
  void Attend();

  std::unique_ptr<Handshakes> handshakes_;
  bool has_identity_ = false;
};

/// The learner's side.
class Server : public Socket {
 public:
  /// Binds. With `keys` (a learner's key file) every connection is encrypted, and only keys of its
  /// allow-list come in: of others no byte is handled. Throws UserError or MachineError (port in
  /// use) naming the endpoint.
  explicit Server(const std::string& bind, const std::string& keys = "");

  const std::string& endpoint() const { return endpoint_; }  // what peers connect to
  /// Sends, or queues while the peer's pipe is full. False: the peer's connection is gone, or it
  /// reads so slowly that its queue passed kMaxQueued; what was queued is dropped.
  bool Send(const std::string& peer, const Message& message);
  /// Tries the queues again; gives the peers found gone.
  std::vector<std::string> Flush();
  bool queued() const { return !queues_.empty(); }
  /// Lets what was sent travel for at most `ms` when the socket closes.
  void Linger(int ms);

  static constexpr std::size_t kMaxQueued = 1024;  // messages a peer

 private:
  void OnHandshake(Handshakes::Event event, std::int64_t now_us) override;

  BindEndpoint bind_;
  std::string endpoint_;
  std::map<std::string, std::deque<std::vector<Bytes>>> queues_;
};

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
