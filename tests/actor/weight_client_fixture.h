#pragma once
// A weight client beside a small model, and a learner that answers its pulls.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "actor/weight_client.h"
#include "tests/actor/fixture.h"

namespace temper::actor {

inline std::vector<float> Embedding(const engine::Weights& weights) {
  return {weights.embedding().begin(), weights.embedding().end()};
}

class WeightClientTest : public ::testing::Test {
 protected:
  /// Answers pulls until none come; gives how many chunks travelled.
  int Serve(const Published& published, bool apply_now = true) {
    int chunks = 0;
    for (auto pulls = client_.Pulls(); !pulls.empty(); pulls = client_.Pulls()) {
      EXPECT_LE(pulls.size(), WeightClient::kWindow);
      for (const auto& pull : pulls) {
        client_.Take(published.Chunk(pull), apply_now);
        ++chunks;
      }
    }
    return chunks;
  }

  /// All of the set has come; its embedding, the first tensor, is applied as it was sent.
  void ExpectInPlace(const Published& published) {
    ASSERT_TRUE(client_.complete());
    client_.Apply();
    EXPECT_EQ(std::memcmp(weights_->embedding().data(), published.bytes.data(),
                          weights_->embedding().size() * 4),
              0);
  }

  engine::ModelConfig config_ = engine::TinyConfig();
  std::shared_ptr<engine::Weights> weights_ = std::make_shared<engine::Weights>(config_);
  kernels::ThreadPool pool_{2};
  WeightClient client_{weights_, &pool_};
};

}  // namespace temper::actor
