#include "actor/weight_client.h"

#include <gtest/gtest.h>

#include "configs/error.h"
#include "tests/actor/fixture.h"

namespace temper::actor {
namespace {

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

  engine::ModelConfig config_ = engine::TinyConfig();
  std::shared_ptr<engine::Weights> weights_ = std::make_shared<engine::Weights>(config_);
  WeightClient client_{weights_};
};

TEST_F(WeightClientTest, PutsEveryTensorInPlace) {
  const Published published = Publish(config_, 1, 5);
  client_.Start(published.manifest);
  EXPECT_GT(Serve(published), 0);
  ASSERT_TRUE(client_.complete());
  EXPECT_EQ(client_.Apply(), 5u);
  weights_->CheckComplete();
  EXPECT_EQ(std::memcmp(weights_->embedding().data(), published.bytes.data(),
                        weights_->embedding().size() * 4),
            0);
  EXPECT_FALSE(client_.pulling());
}

TEST_F(WeightClientTest, TouchesNothingBeforeApplyWhileSamplesRun) {
  const Published first = Publish(config_, 1, 5), second = Publish(config_, 1, 6);
  client_.Start(first.manifest);
  Serve(first);
  client_.Apply();
  const std::vector<float> before = weights_->embedding();
  client_.Start(second.manifest);
  Serve(second, false);
  EXPECT_EQ(weights_->embedding(), before);
  EXPECT_EQ(client_.Apply(), 6u);
  EXPECT_NE(weights_->embedding(), before);
}

TEST_F(WeightClientTest, WidensBf16) {
  const Published published = Publish(config_, 1, 5, "BF16");
  client_.Start(published.manifest);
  Serve(published);
  client_.Apply();
  std::uint32_t bits;
  std::memcpy(&bits, weights_->embedding().data(), 4);
  std::uint16_t high;
  std::memcpy(&high, published.bytes.data(), 2);
  EXPECT_EQ(bits, std::uint32_t{high} << 16);
}

TEST_F(WeightClientTest, CatchesEveryChangedByte) {
  const Published published = Publish(config_, 1, 5);
  for (std::size_t at : {std::size_t{0}, published.bytes.size() / 2, published.bytes.size() - 1}) {
    Published changed = published;
    changed.bytes[at] ^= std::byte{1};
    client_.Start(changed.manifest);
    EXPECT_THROW(Serve(changed), MachineError) << at;
    EXPECT_FALSE(client_.pulling());
  }
}

TEST_F(WeightClientTest, GoesOnWhereALostConnectionStopped) {
  const Published published = Publish(config_, 1, 5);
  client_.Start(published.manifest);
  const auto pulls = client_.Pulls();
  if (pulls.size() < 2) GTEST_SKIP() << "the model fits one chunk";
  client_.Take(published.Chunk(pulls[0]), true);
  client_.Start(published.manifest);
  const auto again = client_.Pulls();
  ASSERT_FALSE(again.empty());
  EXPECT_EQ(again[0].offset, pulls[1].offset);
}

TEST_F(WeightClientTest, IgnoresChunksNobodyAskedFor) {
  const Published published = Publish(config_, 1, 5);
  client_.Take(published.Chunk({5, 0, 16}), true);  // nothing was started
  client_.Start(published.manifest);
  client_.Take(published.Chunk({5, 0, 16}), true);  // nothing was pulled
  const auto pulls = client_.Pulls();
  client_.Take(published.Chunk({5, 16, 16}), true);  // not the next one
  wire::WeightsChunk old = published.Chunk(pulls[0]);
  old.version = 4;
  client_.Take(old, true);
  for (const auto& pull : pulls) client_.Take(published.Chunk(pull), true);
  Serve(published);
  EXPECT_TRUE(client_.complete());
}

TEST_F(WeightClientTest, RefusesTheWeightsOfAnotherModelByName) {
  const auto error_of = [&](const wire::WeightsManifest& manifest) -> std::string {
    try {
      client_.Start(manifest);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  Published published = Publish(config_, 1, 5);
  wire::WeightsManifest manifest = published.manifest;
  manifest.tensors[3].name = "model.other";
  EXPECT_NE(error_of(manifest).find("model.other"), std::string::npos);
  manifest = published.manifest;
  manifest.tensors[0].shape = {std::int64_t{1} << 60, 1};
  EXPECT_NE(error_of(manifest).find("1152921504606846976"), std::string::npos);
  manifest = published.manifest;
  manifest.tensors[0].dtype = "F8_E4M3";
  EXPECT_NE(error_of(manifest).find("F8_E4M3"), std::string::npos);
  manifest = published.manifest;
  manifest.tensors[0].end += 4;
  EXPECT_NE(error_of(manifest), "");
  manifest.tensors.pop_back();
  EXPECT_NE(error_of(manifest).find("tensors"), std::string::npos);
  EXPECT_FALSE(client_.pulling());
}

}  // namespace
}  // namespace temper::actor
