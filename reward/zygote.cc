#include "reward/zygote.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "configs/error.h"
#include "reward/zygote_wire.h"

extern char** environ;

namespace temper::reward {
namespace {

/// Sends the request, with a descriptor if `passed` >= 0, and waits for the reply.
ZygoteReply Ask(int control, ZygoteRequest request, int passed) {
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
  iovec data{&request, sizeof request};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (passed >= 0) {
    message.msg_control = space;
    message.msg_controllen = sizeof space;
    cmsghdr* extra = CMSG_FIRSTHDR(&message);
    extra->cmsg_level = SOL_SOCKET;
    extra->cmsg_type = SCM_RIGHTS;
    extra->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(extra), &passed, sizeof passed);
  }
  ssize_t done = -1;
  do {
    done = sendmsg(control, &message, MSG_NOSIGNAL);
  } while (done < 0 && errno == EINTR);
  ZygoteReply reply;
  if (done == static_cast<ssize_t>(sizeof request)) {
    do {
      done = recv(control, &reply, sizeof reply, MSG_WAITALL);
    } while (done < 0 && errno == EINTR);
    if (done == static_cast<ssize_t>(sizeof reply)) return reply;
  }
  throw MachineError("reward zygote: it has gone; start the reward worker again");
}

std::string HowItEnded(int status) {
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    std::string text = "killed by signal " + std::to_string(signal);
    const char* name = strsignal(signal);
    if (name != nullptr) text += std::string(" (") + name + ")";
    return text;
  }
  return "exited with code " + std::to_string(WEXITSTATUS(status));
}

}  // namespace

Zygote::Zygote(const std::vector<std::string>& argv) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw MachineError(std::string("reward zygote: socketpair: ") + std::strerror(errno));
  }
  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], kZygoteFd);
  const int error = posix_spawn(&pid_, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  fd_ = ends[0];
  if (error != 0) {
    close(fd_);
    throw MachineError("reward zygote: " + argv[0] + ": " + std::strerror(error));
  }
}

Zygote::~Zygote() {
  close(fd_);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Sandbox Zygote::Spawn(int memory_mib) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw MachineError(std::string("reward sandbox: socketpair: ") + std::strerror(errno));
  }
  ZygoteReply reply;
  try {
    reply = Ask(fd_, {ZygoteRequest::kSpawn, memory_mib}, ends[1]);
  } catch (...) {
    close(ends[0]);
    close(ends[1]);
    throw;
  }
  close(ends[1]);
  if (reply.value <= 0) {
    close(ends[0]);
    throw MachineError(std::string("reward sandbox: fork: ") + std::strerror(reply.error));
  }
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return {reply.value, ends[0]};
}

std::string Zygote::Reap(const Sandbox& sandbox) {
  // The pid cannot be another process's: only the zygote's waitpid below frees it. A sandbox that
  // has ended keeps the status of its own end.
  kill(sandbox.pid, SIGKILL);
  close(sandbox.fd);
  const ZygoteReply reply = Ask(fd_, {ZygoteRequest::kReap, sandbox.pid}, -1);
  return HowItEnded(reply.value);
}

}  // namespace temper::reward
