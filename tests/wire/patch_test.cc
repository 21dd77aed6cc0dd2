#include "wire/patch.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace temper::wire {
namespace {

std::vector<std::byte> RandomBytes(std::size_t n, std::mt19937_64* random) {
  std::vector<std::byte> bytes(n);
  for (std::byte& b : bytes) b = static_cast<std::byte>((*random)());
  return bytes;
}

TEST(PatchTest, GivesTheOtherArrayForAnyShareOfChanges) {
  std::mt19937_64 random(3);
  for (const std::size_t width : {1u, 2u, 4u}) {
    for (const double share : {0.0, 0.0001, 0.01, 0.3, 1.0}) {
      for (const std::size_t n : {0u, 1u, 129u, 20000u}) {
        const auto before = RandomBytes(n * width, &random);
        auto after = before;
        std::size_t changed = 0;
        for (std::size_t i = 0; i < n; ++i) {
          if (std::uniform_real_distribution<double>()(random) >= share) continue;
          after[i * width + random() % width] ^= std::byte{1};
          ++changed;
        }
        const auto patch = MakePatch(before, after, width, SIZE_MAX);
        ASSERT_TRUE(patch);
        EXPECT_EQ(patch->empty(), changed == 0);
        EXPECT_LE(patch->size(), changed * (width + 3));
        auto patched = before;
        ASSERT_TRUE(ApplyPatch(*patch, width, patched));
        EXPECT_EQ(patched, after) << width << " " << share << " " << n;
      }
    }
  }
}

TEST(PatchTest, StopsWhereItWouldBeTooLong) {
  std::mt19937_64 random(4);
  const auto before = RandomBytes(100000, &random), after = RandomBytes(100000, &random);
  EXPECT_FALSE(MakePatch(before, after, 4, 50000));
  EXPECT_TRUE(MakePatch(before, before, 4, 0));
}

TEST(PatchTest, RefusesWhatLeavesTheArrayAndSurvivesAnyBytes) {
  std::vector<std::byte> bytes(16);
  const auto apply = [&](std::initializer_list<int> list, std::size_t width) {
    std::vector<std::byte> patch;
    for (const int b : list) patch.push_back(static_cast<std::byte>(b));
    return ApplyPatch(patch, width, bytes);
  };
  EXPECT_TRUE(apply({15, 7}, 1));
  EXPECT_FALSE(apply({16, 7}, 1));                                                   // past the end
  EXPECT_FALSE(apply({15, 7, 0, 7}, 1));                                             // one more
  EXPECT_FALSE(apply({3, 1, 2}, 4));                                                 // half a value
  EXPECT_FALSE(apply({0x80}, 1));                                                    // half a gap
  EXPECT_FALSE(apply({255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 7}, 1));  // endless
  EXPECT_FALSE(apply({0, 1}, 0));
  std::mt19937_64 random(5);
  for (int round = 0; round < 20000; ++round) {
    auto guarded = RandomBytes(64, &random);
    const auto before = guarded;
    const auto patch = RandomBytes(random() % 24, &random);
    ApplyPatch(patch, 1u << (random() % 3), std::span(guarded).subspan(16, 32));
    EXPECT_EQ(std::memcmp(guarded.data(), before.data(), 16), 0);
    EXPECT_EQ(std::memcmp(guarded.data() + 48, before.data() + 48, 16), 0);
  }
}

}  // namespace
}  // namespace temper::wire
