#pragma once
// A zygote whose sandboxes start well and then break the protocol in a named way.
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <string>

#include "reward/frames.h"
#include "reward/zygote_wire.h"

namespace temper::reward {

inline void Put(int fd, const std::string& bytes) { (void)!write(fd, bytes.data(), bytes.size()); }

inline std::string Lie(const std::string& how) {
  std::string bytes;
  Outcome outcome;
  outcome.score = 1.0;
  if (how == "huge-frame") {
    const std::uint32_t size = 0xFFFFFFFF;
    bytes.assign(reinterpret_cast<const char*>(&size), 4);
  } else if (how == "zero-frame") {
    bytes.assign(4, '\0');
  } else if (how == "wrong-kind") {
    AppendReady("", &bytes);
  } else if (how == "nan-score") {
    outcome.score = std::numeric_limits<double>::quiet_NaN();
    AppendOutcome(outcome, &bytes);
  } else if (how == "status-without-score") {
    outcome.score.reset();
    AppendOutcome(outcome, &bytes);
  } else if (how == "half-frame") {
    AppendOutcome(outcome, &bytes);
    bytes.resize(bytes.size() - 3);
  }
  return bytes;
}

struct Liar {
  const char* how;
  const char* status;  // what its samples get
};
inline constexpr Liar kLiars[] = {{"huge-frame", "crashed"}, {"zero-frame", "crashed"},
                                  {"wrong-kind", "crashed"}, {"nan-score", "crashed"},
                                  {"flood", "crashed"},      {"status-without-score", "crashed"},
                                  {"die", "crashed"},        {"silent", "timeout"},
                                  {"half-frame", "timeout"}, {"stopped", "timeout"}};

[[noreturn]] inline void LyingSandbox(int fd, const std::string& how) {
  std::string bytes;
  AppendReady("", &bytes);
  Loaded loaded;
  loaded.outcome.score = 0.0;
  AppendLoaded(loaded, &bytes);
  Put(fd, bytes);
  char buffer[65536];
  std::string received;
  std::size_t taken = 0;
  for (bool asked = false; !asked;) {  // it lies when it is asked for a score
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got <= 0) _exit(0);
    received.append(buffer, static_cast<std::size_t>(got));
    while (true) {
      const std::string_view body = TakeFrame(received, kMaxFrame, &taken);
      if (body.empty()) break;
      asked = asked || KindOf(body) == FrameKind::kSample;
    }
  }
  if (how == "die") _exit(7);
  if (how == "stopped") raise(SIGSTOP);
  if (how == "flood") {
    const std::string noise(sizeof buffer, '\x55');
    while (write(fd, noise.data(), noise.size()) > 0) {
    }
    _exit(0);
  }
  Put(fd, Lie(how));
  while (read(fd, buffer, sizeof buffer) > 0) {
  }
  _exit(0);
}

/// Speaks reward/zygote_wire.h as the real one does.
inline int LyingZygote(int control, const std::string& how) {
  std::signal(SIGPIPE, SIG_IGN);
  while (true) {
    ZygoteRequest request;
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
    iovec data{&request, sizeof request};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = space;
    message.msg_controllen = sizeof space;
    if (recvmsg(control, &message, MSG_WAITALL) != sizeof request) return 0;
    ZygoteReply reply;
    const cmsghdr* extra = CMSG_FIRSTHDR(&message);
    if (extra != nullptr) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(extra), sizeof fd);
      reply.value = fork();
      if (reply.value == 0) LyingSandbox(fd, how);
      close(fd);
    } else {
      int status = -1;
      waitpid(request.value, &status, 0);
      reply.value = status;
    }
    (void)!write(control, &reply, sizeof reply);
  }
}

}  // namespace temper::reward
