#pragma once
// Lets a test program be its own zygote: `PROGRAM reward-zygote`, as `temper reward-zygote` is.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>

#include "reward/zygote.h"
#include "tests/reward/lying_zygote.h"

namespace temper::reward {

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
    if (command == "lying-zygote") _exit(LyingZygote(kZygoteFd, how));
  }
};

inline testing::Environment* const kZygoteEntry =
    testing::AddGlobalTestEnvironment(new ZygoteEntry);

}  // namespace temper::reward
