#pragma once
// What became of a socket's handshakes, from ZeroMQ's events.
#include <string>

namespace temper::wire {

class Handshakes {
 public:
  enum class Event {
    kSucceeded,
    kUnauthorised,  // the other side's list does not have this key
    kMismatch,      // another mechanism, another protocol, or a box that no key opens
    kBroken,        // the connection ended in the middle
  };
  /// Watches `socket` from now on. Throws MachineError.
  Handshakes(void* context, void* socket);
  ~Handshakes();
  Handshakes(const Handshakes&) = delete;
  Handshakes& operator=(const Handshakes&) = delete;

  void* handle() const { return handle_; }
  /// The next event. False: none waits.
  bool Take(Event* event);

 private:
  void* socket_;
  void* handle_ = nullptr;
};

}  // namespace temper::wire
