#include "actor/weight_client.h"

#include <algorithm>

#include "configs/error.h"
#include "tests/actor/weight_client_fixture.h"
#include "wire/shared_bytes.h"

namespace temper::actor {
namespace {

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
  const std::vector<float> before = Embedding(*weights_);
  client_.Start(second.manifest);
  Serve(second, false);
  EXPECT_EQ(Embedding(*weights_), before);
  EXPECT_EQ(client_.Apply(), 6u);
  EXPECT_NE(Embedding(*weights_), before);
}

TEST_F(WeightClientTest, CopiesWhatTheLearnerSharesAndPullsWhatIsNotTheManifests) {
  const Published published = Publish(config_, 1, 5);
  wire::SharedBytes shared;
  shared.resize(published.bytes.size());
  std::copy(published.bytes.begin(), published.bytes.end(), shared.begin());
  client_.Start(published.manifest);
  client_.Fetch(shared.path(), true);
  EXPECT_EQ(Serve(published), 0);
  ExpectInPlace(published);
  // A flipped bit anywhere: from its tensor on everything is pulled, and counted as nobody's fault.
  const auto& tensors = published.manifest.tensors;
  for (const std::size_t at : {std::size_t{0}, tensors.size() / 2, tensors.size() - 1}) {
    Published next = published;
    next.manifest.version = std::uint32_t(100 + at);
    shared[tensors[at].begin] ^= std::byte{4};
    WeightClient client(weights_, &pool_);
    client.Start(next.manifest);
    client.Fetch(shared.path(), true);
    EXPECT_FALSE(client.complete());
    const auto pulls = client.Pulls();
    ASSERT_FALSE(pulls.empty());
    EXPECT_EQ(pulls[0].offset, tensors[at].begin);
    EXPECT_EQ(client.corrupt(), 0u);
    shared[tensors[at].begin] ^= std::byte{4};
  }
  // Nothing there, or another thing: all is pulled.
  wire::SharedBytes shorter;
  shorter.resize(published.bytes.size() - 1);
  for (const std::string& path :
       {std::string("/proc/1/fd/99"), std::string("/dev/null"), shorter.path(),
        shared.path() + "/../" + shared.path().substr(shared.path().rfind('/') + 1)}) {
    WeightClient client(weights_, &pool_);
    client.Start(published.manifest);
    client.Fetch(path, true);
    EXPECT_EQ(client.Pulls().front().offset, 0u) << path;
  }
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

TEST_F(WeightClientTest, GoesOnWhereALostConnectionStopped) {
  const Published published = Publish(config_, 1, 5);
  client_.Start(published.manifest);
  const auto pulls = client_.Pulls();
  ASSERT_GE(pulls.size(), 2u);
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
  manifest = published.manifest;
  manifest.tensors.pop_back();
  EXPECT_NE(error_of(manifest).find("the end of its tensors"), std::string::npos);
  EXPECT_FALSE(client_.pulling());
}

}  // namespace
}  // namespace temper::actor
