#include "learner/communicator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "configs/error.h"
#include "tests/error_of.h"
#include "tests/learner/rank_threads.h"

namespace temper::learner {
namespace {

TEST(CommunicatorTest, ARankThatIsAloneNeedsNobody) {
  Communicator alone;
  EXPECT_TRUE(alone.alone() && alone.root());
  std::string text = "x";
  alone.FromRoot(&text);
  EXPECT_EQ(alone.Gather(text), std::vector<std::string>{"x"});
  std::vector<float> values = {1, 2, 3}, whole(3);
  alone.ReduceScatter(values.data(), 3);
  alone.AllGather(values.data(), 3);
  alone.ToRoot(values.data(), 3, whole.data());
  EXPECT_EQ(whole, (std::vector<float>{1, 2, 3}));
}

TEST(CommunicatorTest, TextsTravelFromTheRootAndFromEveryone) {
  RunRanks(3, [](Communicator& ranks) {
    std::string text = ranks.root() ? std::string("a\0b", 3) : "";
    ranks.FromRoot(&text);
    EXPECT_EQ(text, std::string("a\0b", 3));
    ranks.FollowRoot();
    const auto all = ranks.Gather(std::string(std::size_t(ranks.rank()), 'r'));
    EXPECT_EQ(all, (std::vector<std::string>{"", "r", "rr"}));
  });
}

TEST(CommunicatorTest, ShardsAddUpInRankOrderWhateverTheLength) {
  for (const int count : {2, 3}) {
    RunRanks(count, [&](Communicator& ranks) {
      for (const std::int64_t size : {1, 15, 16, 40, 1000, 3 * (1 << 20) + 5}) {
        std::vector<float> mine, want;
        for (int r = 0; r < count; ++r) {
          std::mt19937 rng{unsigned(r)};
          std::vector<float> part(static_cast<std::size_t>(size));
          for (float& x : part) x = std::ldexp(float(rng() >> 8), int(rng() % 40) - 30);
          if (r == ranks.rank()) mine = part;
          for (std::size_t i = 0; r > 0 && i < part.size(); ++i) want[i] += part[i];
          if (r == 0) want = part;
        }
        ranks.ReduceScatter(mine.data(), size);
        const Shard shard = ranks.shard();
        const std::int64_t begin = shard.begin(size), end = shard.end(size);
        std::vector<float> whole(ranks.root() ? std::size_t(size) : 0);
        ranks.ToRoot(mine.data() + begin, size, ranks.root() ? whole.data() : nullptr);
        if (ranks.root()) {
          EXPECT_EQ(whole, want) << size;
        }
        std::fill(mine.begin(), mine.begin() + begin, -1.0f);
        std::fill(mine.begin() + end, mine.end(), -1.0f);
        ranks.AllGather(mine.data(), size);
        EXPECT_EQ(mine, want) << size;
      }
    });
  }
}

TEST(CommunicatorTest, WhatDiffersBetweenRanksIsSaidWithTheRank) {
  RunRanks(3, [](Communicator& ranks) {
    ranks.MustAgree("the hash", "same");
    const std::string error =
        ErrorOf<MachineError>([&] { ranks.MustAgree("the hash", ranks.rank() == 2 ? "b" : "a"); });
    EXPECT_EQ(error.find("the hash of rank 2 is not that of rank 0 (b, not a)"), 0u) << error;
  });
}

TEST(CommunicatorTest, ARankThatDoesNotComeIsNamedWithinTheDeadline) {
  const int port = FreePort();
  const RankPlace place{0, 3, 0, 3, "127.0.0.1", port, false};
  const std::string error = ErrorOf<MachineError>([&] { Communicator ranks(place, "cpu", 0.5); });
  EXPECT_EQ(error.find("rank 0 of 3: ranks 1, 2 did not come to 127.0.0.1:"), 0u) << error;
}

TEST(CommunicatorTest, ARankThatStaysBehindIsNamedWithinTheDeadline) {
  RunRanks(
      3,
      [](Communicator& ranks) {
        if (ranks.rank() == 1) {
          std::this_thread::sleep_for(std::chrono::seconds(5));
          return;
        }
        const std::string error = ErrorOf<MachineError>([&] { ranks.Gather("x"); });
        EXPECT_NE(error.find("gathering: rank 1 lives but has not come to the exchange"),
                  std::string::npos)
            << error;
      },
      /*timeout_s=*/1, /*lost=*/true);
}

TEST(CommunicatorTest, APortInUseIsSaid) {
  const int port = FreePort();
  const RankPlace place{0, 2, 0, 2, "127.0.0.1", port, false};
  std::string other;
  std::thread server(
      [&] { other = ErrorOf<MachineError>([&] { Communicator ranks(place, "cpu", 2); }); });
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  const std::string error = ErrorOf<MachineError>([&] { Communicator ranks(place, "cpu", 2); });
  server.join();
  EXPECT_EQ(error.find("MASTER_PORT: 127.0.0.1:" + std::to_string(port) + " is in use"), 0u)
      << error;
}

TEST(CommunicatorTest, ADeviceThatIsNotThereIsNamedBeforeAnybodyMeets) {
  const RankPlace place{1, 2, 1, 2, "127.0.0.1", FreePort(), false};
  const std::string error =
      ErrorOf<MachineError>([&] { Communicator ranks(place, "cuda:1000", 5); });
  EXPECT_EQ(error.find("cuda:1001: "), 0u) << error;  // the second rank's
}

}  // namespace
}  // namespace temper::learner
