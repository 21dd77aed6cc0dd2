#include "kernels/thread_pool.h"

#include <immintrin.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "kernels/cpu.h"
#include "tests/kernels/testing.h"

namespace temper::kernels {
namespace {

TEST(ThreadPoolTest, RunsEveryPartExactlyOnce) {
  for (int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int parts : {0, 1, 2, 3, 100, 1000}) {
      std::vector<int> ran(parts, 0);  // not atomic: a part that ran twice would be a race
      pool.Run(parts, [&](int i) { ++ran[i]; });
      EXPECT_EQ(ran, std::vector<int>(parts, 1));
    }
  }
}

TEST(ThreadPoolTest, WhatThePartsWroteIsThereWhenRunReturns) {
  ThreadPool pool(3);
  std::vector<int> value(8, 0);
  for (int round = 0; round < 20000; ++round) {
    pool.Run(8, [&](int i) { value[i] += i; });
  }
  for (int i = 0; i < 8; ++i) EXPECT_EQ(value[i], 20000 * i);
}

TEST(ThreadPoolTest, WorkersThatFellAsleepAreWoken) {
  ThreadPool pool(2);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<int> inside{0};
    // Both parts must be in at once, so a second thread must come.
    pool.Run(2, [&](int) {
      ++inside;
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (inside < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
      EXPECT_EQ(inside, 2);
    });
  }
}

TEST(ThreadPoolTest, AnErrorComesBackAfterAllPartsHaveEnded) {
  ThreadPool pool(3);
  std::atomic<int> ran{0};
  const auto part = [&](int i) {
    ++ran;
    if (i == 5) throw std::runtime_error("part 5");
  };
  EXPECT_THROW(pool.Run(20, part), std::runtime_error);
  EXPECT_EQ(ran, 20);
  pool.Run(3, [&](int) { ++ran; });
  EXPECT_EQ(ran, 23);
}

TEST(ThreadPoolTest, RefusesNoThreads) {
  EXPECT_THROW(ThreadPool(0), std::invalid_argument);
  EXPECT_THROW(ThreadPool(-3), std::invalid_argument);
}

TEST(ThreadPoolTest, RefusesAThreadThatFlushesSubnormals) {
  ThreadPool pool(2);
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8000);
  EXPECT_THROW(CheckFloatingPointMode(), std::runtime_error);
  EXPECT_THROW(pool.Run(1, [](int) {}), std::runtime_error);
  EXPECT_THROW(ThreadPool(2), std::runtime_error);
  _mm_setcsr(before | 0x3F);  // sticky exception flags are history, not a mode
  EXPECT_NO_THROW(CheckFloatingPointMode());
  _mm_setcsr(before);
}

}  // namespace
}  // namespace temper::kernels
