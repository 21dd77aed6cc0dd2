#pragma once
// Lets a test program be its own zygote: `PROGRAM reward-zygote`, as `temper reward-zygote` is.
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <string>

#include "reward/zygote.h"
#include "tests/reward/lying_zygote.h"

namespace temper::reward {

/// From now on this process and its children are on a machine without system call filters.
inline bool ForbidSeccomp() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_prctl, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_SECCOMP, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{std::size(code), code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/// Its set-up runs after all static objects are made and before any test.
class ZygoteEntry : public testing::Environment {
 public:
  void SetUp() override {
    std::ifstream file("/proc/self/cmdline", std::ios::binary);
    std::string program, command;
    std::getline(file, program, '\0');
    std::getline(file, command, '\0');
    if (command == "reward-zygote") _exit(ZygoteMain(kZygoteFd));
    std::string how;
    std::getline(file, how, '\0');
    if (command == "blind-zygote") _exit(ForbidSeccomp() ? ZygoteMain(kZygoteFd) : 97);
    if (command == "lying-zygote") _exit(LyingZygote(kZygoteFd, how));
  }
};

inline testing::Environment* const kZygoteEntry =
    testing::AddGlobalTestEnvironment(new ZygoteEntry);

}  // namespace temper::reward
