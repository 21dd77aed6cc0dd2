#pragma once
// Whom a ROUTER lets in: ZeroMQ's question for each CURVE handshake (ZAP 1.0), answered by the
// allow-list.
#include <sys/stat.h>

#include <string>

#include "wire/keys.h"
#include "wire/refusals.h"

namespace temper::wire {

/// Answers on the thread that polls it. A key file that changes counts from the next handshake on;
/// one that can't be read any more changes nothing.
class Gate {
 public:
  /// Must exist before `context`'s first CURVE socket binds. Throws MachineError.
  Gate(void* context, Keys keys);
  ~Gate();
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  void* handle() const { return handle_; }
  /// Answers every question that waits.
  void Answer(Refusals* refusals, std::int64_t now_us);

 private:
  void Reload(Refusals* refusals, std::int64_t now_us);

  void* handle_;
  Keys keys_;
  struct stat seen_ {};
};

}  // namespace temper::wire
