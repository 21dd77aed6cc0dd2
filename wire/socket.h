#pragma once
// What the learner's and its peers' ZeroMQ sockets share: nothing blocks, nothing is dropped in
// silence.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

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

}  // namespace temper::wire
