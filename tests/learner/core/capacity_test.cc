#include "learner/core/capacity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace temper::learner {
namespace {

/// Eight experts on four devices, two experts a token, twelve tokens in three sequences.
class CapacityTest : public testing::Test {
 protected:
  CapacityTest() {
    shape_.experts = 8;
    shape_.top_k = 2;
    shape_.groups = 4;
    shape_.topk_groups = 2;
    for (int s = 0; s < 3; ++s) pack_.Add(std::vector<std::int32_t>(4));
    std::mt19937 rng(5);
    std::normal_distribution<float> normal;
    for (int i = 0; i < 12 * 8; ++i) logits_.push_back(normal(rng));
    // Most tokens want device 0.
    for (int t = 0; t < 12; ++t) {
      ids_.push_back(t % 3 == 0 ? 2 : 0);
      ids_.push_back(t % 4 == 0 ? 7 : t % 3 == 0 ? 3 : 1);
    }
  }
  int OnDevice(int device, const std::vector<char>& dropped, bool left) const {
    int count = 0;
    for (std::size_t i = 0; i < ids_.size(); ++i)
      count += ids_[i] / 2 == device && (!left || !dropped[i]);
    return count;
  }
  float Score(std::size_t pair) const { return logits_[pair / 2 * 8 + std::size_t(ids_[pair])]; }

  kernels::RouterShape shape_;
  Pack pack_;
  std::vector<float> logits_;
  std::vector<std::int32_t> ids_;
};

TEST_F(CapacityTest, ADeviceKeepsItsShareOfTheHighestScores) {
  const std::vector<char> dropped = PastCapacity(1, shape_, pack_, ids_.data(), logits_.data());
  const int room = 12 * 2 / 4;
  for (int d = 0; d < 4; ++d)
    EXPECT_EQ(OnDevice(d, dropped, true), std::min(room, OnDevice(d, dropped, false))) << d;
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    for (std::size_t j = 0; j < ids_.size(); ++j) {
      if (ids_[i] / 2 == ids_[j] / 2 && dropped[i] && !dropped[j]) {
        EXPECT_LE(Score(i), Score(j));
      }
    }
  }
}

TEST_F(CapacityTest, AnExemptSequenceLosesNothingAndTakesItsRoomFirst) {
  pack_.exempt = {0, 1, 0};
  const std::vector<char> dropped = PastCapacity(1, shape_, pack_, ids_.data(), logits_.data());
  EXPECT_EQ(std::count(dropped.begin() + 8, dropped.begin() + 16, 1), 0);
  EXPECT_EQ(OnDevice(0, dropped, true), 6);
  // More exempt pairs than room: they all stay.
  pack_.exempt = {1, 1, 1};
  const std::vector<char> none = PastCapacity(1, shape_, pack_, ids_.data(), logits_.data());
  EXPECT_EQ(std::count(none.begin(), none.end(), 1), 0);
}

TEST_F(CapacityTest, RoomForAllDropsNothingAndNoRoomDropsAll) {
  const auto count = [&](double capacity) {
    const auto dropped = PastCapacity(capacity, shape_, pack_, ids_.data(), logits_.data());
    return std::count(dropped.begin(), dropped.end(), 1);
  };
  EXPECT_EQ(count(4), 0);
  EXPECT_EQ(count(0.01), 24);
  EXPECT_GT(count(0.5), count(1));
}

}  // namespace
}  // namespace temper::learner
