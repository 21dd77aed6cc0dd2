#include <random>

#include "configs/sha256.h"
#include "engine/canary.h"
#include "tests/actor/weight_client_fixture.h"
#include "wire/patch.h"

namespace temper::actor {
namespace {

/// `published` as a delta from `base`: tensors with equal bytes stay, the others travel whole or as
/// patches.
Published DeltaOf(const Published& base, const Published& published,
                  std::vector<std::byte>* delta) {
  Published out = published;
  out.manifest.base = base.manifest.version;
  for (std::size_t i = 0; i < out.manifest.tensors.size(); ++i) {
    auto& t = out.manifest.tensors[i];
    const auto from = std::span<const std::byte>(base.bytes).subspan(t.begin, t.end - t.begin);
    const auto to = std::span<const std::byte>(out.bytes).subspan(t.begin, t.end - t.begin);
    const auto patch = wire::MakePatch(from, to, 4, to.size() / 2);
    const auto piece = patch ? std::span<const std::byte>(*patch) : to;
    t.form = !patch           ? wire::DeltaForm::kFull
             : patch->empty() ? wire::DeltaForm::kSame
                              : wire::DeltaForm::kPatch;
    t.delta_begin = delta->size();
    delta->insert(delta->end(), piece.begin(), piece.end());
    t.delta_end = delta->size();
  }
  out.manifest.delta_bytes = delta->size();
  return out;
}

/// Version 6: some elements of version 5 changed, one tensor wholly.
Published Changed(const Published& base) {
  Published next = base;
  next.manifest.version = 6;
  std::mt19937_64 random(12);
  for (std::size_t i = 0; i < next.manifest.tensors.size(); ++i) {
    auto& t = next.manifest.tensors[i];
    const std::uint64_t count = (t.end - t.begin) / 4;
    const std::uint64_t changes = i == 3 ? count : i % 3 == 0 ? count / 20 : 0;
    for (std::uint64_t c = 0; c < changes; ++c) {
      const std::uint64_t at = i == 3 ? c : random() % count;
      next.bytes[t.begin + at * 4] ^= std::byte{3};
    }
    t.sha256 = configs::Sha256Hex(
        std::span<const std::byte>(next.bytes).subspan(t.begin, t.end - t.begin));
  }
  return next;
}

TEST_F(WeightClientTest, ADeltaGivesTheSameWeightsAsTheFullSet) {
  const Published first = Publish(config_, 1, 5);
  std::vector<std::byte> changes;
  const Published second = DeltaOf(first, Changed(first), &changes);
  ASSERT_LT(changes.size(), first.bytes.size() / 2);
  const auto serve = [&](WeightClient* client) {
    int deltas = 0;
    for (auto pulls = client->Pulls(); !pulls.empty(); pulls = client->Pulls()) {
      for (const auto& pull : pulls) {
        wire::WeightsChunk chunk =
            pull.delta ? wire::WeightsChunk{6, pull.offset, {}, true} : second.Chunk(pull);
        if (pull.delta) {
          chunk.data = wire::Bytes::Copy(
              std::span<const std::byte>(changes).subspan(pull.offset, pull.length));
        }
        deltas += pull.delta;
        client->Take(chunk, true);
      }
    }
    return deltas;
  };
  const auto embedding_of = [&](bool late) {
    auto weights = std::make_shared<engine::Weights>(config_);
    WeightClient client(weights);
    if (!late) {
      client.Start(first.manifest);
      for (auto pulls = client.Pulls(); !pulls.empty(); pulls = client.Pulls()) {
        for (const auto& pull : pulls) client.Take(first.Chunk(pull), true);
      }
      client.Apply();
    }
    const std::uint64_t before = client.bytes_pulled();
    client.Start(second.manifest);
    EXPECT_EQ(serve(&client) > 0, !late);
    EXPECT_EQ(client.bytes_pulled() - before, late ? second.bytes.size() : changes.size());
    EXPECT_TRUE(client.complete());
    EXPECT_EQ(client.Apply(), 6u);
    weights->CheckComplete();
    kernels::ThreadPool pool(1);
    return std::pair(Embedding(*weights), engine::Canary(*weights, 90, pool));
  };
  EXPECT_EQ(embedding_of(false), embedding_of(true));  // a late joiner pulls everything
}

TEST_F(WeightClientTest, ADamagedDeltaIsReplacedByTheFullSet) {
  const Published first = Publish(config_, 1, 5);
  std::vector<std::byte> changes;
  const Published second = DeltaOf(first, Changed(first), &changes);
  client_.Start(first.manifest);
  Serve(first);
  client_.Apply();
  client_.Start(second.manifest);
  std::vector<std::byte> damaged = changes;
  damaged[damaged.size() / 2] ^= std::byte{64};
  for (auto pulls = client_.Pulls(); !pulls.empty(); pulls = client_.Pulls()) {
    for (const auto& pull : pulls) {
      if (pull.delta) {
        client_.Take({6, pull.offset,
                      wire::Bytes::Copy(
                          std::span<const std::byte>(damaged).subspan(pull.offset, pull.length)),
                      true},
                     true);
      } else {
        client_.Take(second.Chunk(pull), true);
      }
    }
  }
  EXPECT_EQ(client_.corrupt(), 1u);
  ExpectInPlace(second);
}

TEST_F(WeightClientTest, ADeltaFromAnotherVersionIsNotPulled) {
  const Published first = Publish(config_, 1, 5);
  std::vector<std::byte> changes;
  Published second = DeltaOf(first, Changed(first), &changes);
  client_.Start(first.manifest);
  Serve(first);
  client_.Apply();
  second.manifest.base = 4;
  client_.Start(second.manifest);
  EXPECT_FALSE(client_.Pulls().at(0).delta);
  client_.Stop();
  second.manifest.base = 5;
  client_.Start(second.manifest);  // what the full set began to overwrite is no base any more
  EXPECT_FALSE(client_.Pulls().at(0).delta);
}

}  // namespace
}  // namespace temper::actor
