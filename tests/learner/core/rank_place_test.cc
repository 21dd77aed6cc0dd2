#include "learner/core/rank_place.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "configs/error.h"
#include "tests/error_of.h"

namespace temper::learner {
namespace {

class RankPlaceTest : public testing::Test {
 protected:
  RankPlaceTest() { Clear(); }
  ~RankPlaceTest() override { Clear(); }
  static void Clear() {
    for (const auto& [name, value] : EnvironmentOf({})) unsetenv(name.c_str());
  }
  static void Set(const RankPlace& place) {
    for (const auto& [name, value] : EnvironmentOf(place))
      setenv(name.c_str(), value.c_str(), /*overwrite=*/1);
  }
};

TEST_F(RankPlaceTest, WithoutVariablesTheProcessIsAlone) {
  EXPECT_EQ(ReadRankPlace().size, 1);
  Set({});  // what temper sets for one learner
  EXPECT_EQ(ReadRankPlace().size, 1);
  EXPECT_EQ(ReadRankPlace().local_size, 1);
}

TEST_F(RankPlaceTest, ReadsWhatItsStarterWrote) {
  Set({2, 4, 1, 2, "10.0.0.7", 29400, true});
  const RankPlace place = ReadRankPlace();
  EXPECT_EQ(place.Name(), "rank 2 of 4");
  EXPECT_EQ(place.local_rank, 1);
  EXPECT_EQ(place.local_size, 2);
  EXPECT_EQ(place.address, "10.0.0.7");
  EXPECT_EQ(place.port, 29400);
  EXPECT_TRUE(place.agent_store);
}

TEST_F(RankPlaceTest, RefusesARankOutsideTheWorldAndAMissingAddress) {
  Set({4, 4, 0, 1, "10.0.0.7", 29400, false});
  EXPECT_EQ(ErrorOf<UserError>(ReadRankPlace), "RANK: found \"4\"; must be an integer from 0 to 3");
  Set({3, 4, 0, 1, "", 29400, false});
  EXPECT_EQ(ErrorOf<UserError>(ReadRankPlace).find("MASTER_ADDR: is not set"), 0u);
  Set({3, 4, 0, 1, "10.0.0.7", 0, false});
  EXPECT_EQ(ErrorOf<UserError>(ReadRankPlace).find("MASTER_PORT: found \"0\""), 0u);
}

TEST(ShardTest, ShardsFollowEachOtherAndCoverTheWhole) {
  for (const std::int64_t size : {0, 1, 16, 17, 100, 4096, 100003}) {
    for (const int ranks : {1, 2, 3, 7}) {
      std::int64_t at = 0;
      for (int r = 0; r < ranks; ++r) {
        const Shard shard{r, ranks};
        EXPECT_EQ(shard.begin(size), at);
        EXPECT_LE(shard.end(size) - at, shard.width(size));
        at = shard.end(size);
      }
      EXPECT_EQ(at, size);
    }
  }
}

}  // namespace
}  // namespace temper::learner
