#include "reward/isolation.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <functional>

namespace temper::reward {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

TEST(Isolate, SaysWhatASanitizedBuildLeavesOut) {
  const pid_t pid = fork();
  if (pid == 0) _exit(Isolate(3, 16) == "RLIMIT_AS, seccomp" ? 0 : 1);
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

#else

/// The wait status of a child that is isolated with `channel` 3 and then acts.
int StatusAfter(const std::function<int()>& act) {
  const pid_t pid = fork();
  if (pid == 0) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) _exit(99);
    dup2(ends[0], 3);
    dup2(ends[1], 4);
    if (!Isolate(3, 16).empty()) _exit(98);
    _exit(act());
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return status;
}

void ExpectKilled(const char* what, const std::function<int()>& act) {
  const int status = StatusAfter(act);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << what << ": " << status;
}

TEST(Isolate, LeavesMemoryAndTheChannel) {
  const int status = StatusAfter([] {
    char byte = 'x';
    if (write(3, &byte, 1) != 1) return 1;
    void* volatile block = std::malloc(4 << 20);
    if (block == nullptr) return 2;
    std::free(block);
    return 0;
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST(Isolate, KillsForFilesProcessesSocketsAndExecutableMemory) {
  ExpectKilled("open", [] { return open("/etc/passwd", O_RDONLY); });
  ExpectKilled("fork", [] { return static_cast<int>(fork()); });
  ExpectKilled("exec", [] { return execl("/bin/true", "true", nullptr); });
  ExpectKilled("socket", [] { return socket(AF_INET, SOCK_STREAM, 0); });
  ExpectKilled("kill", [] { return kill(1, 0); });
  ExpectKilled("getpid", [] { return static_cast<int>(getppid()); });
  ExpectKilled("unlink", [] { return unlink("/tmp/x"); });
  ExpectKilled("write elsewhere", [] { return static_cast<int>(write(4, "x", 1)); });
  ExpectKilled("read elsewhere", [] {
    char byte;
    return static_cast<int>(read(4, &byte, 1));
  });
  ExpectKilled("mmap exec", [] {
    return mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
           nullptr;
  });
  ExpectKilled("mmap file",
               [] { return mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, 3, 0) != nullptr; });
  ExpectKilled("mprotect exec", [] {
    return mprotect(mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 4096,
                    PROT_EXEC);
  });
}

TEST(Isolate, CapsTheAddressSpace) {
  const int status = StatusAfter([] {
    void* volatile block = std::malloc(std::size_t{1} << 30);
    return block == nullptr ? 0 : 1;
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

#endif

}  // namespace
}  // namespace temper::reward
