#include <cstdio>
#include <map>
#include <random>

#include "configs/error.h"
#include "configs/sha256.h"
#include "tests/actor/weight_client_fixture.h"

namespace temper::actor {
namespace {

TEST_F(WeightClientTest, WhatArrivesDamagedIsPulledAgain) {
  const Published published = Publish(config_, 1, 5);
  client_.Start(published.manifest);
  bool damaged = false;
  for (auto pulls = client_.Pulls(); !pulls.empty(); pulls = client_.Pulls()) {
    for (const auto& pull : pulls) {
      Published sent = published;
      if (!damaged) sent.bytes[pull.offset + pull.length / 2] ^= std::byte{1};
      damaged = true;
      client_.Take(sent.Chunk(pull), true);
    }
  }
  EXPECT_EQ(client_.corrupt(), 1u);
  ExpectInPlace(published);
}

TEST_F(WeightClientTest, GivesUpWhatArrivesDamagedAgainAndAgain) {
  const Published published = Publish(config_, 1, 5);
  for (std::size_t at : {std::size_t{0}, published.bytes.size() / 2, published.bytes.size() - 1}) {
    Published changed = published;
    changed.bytes[at] ^= std::byte{1};
    client_.Start(changed.manifest);
    EXPECT_THROW(Serve(changed), MachineError) << at;
    EXPECT_FALSE(client_.pulling());
  }
}

/// Chunks as frames with one bit flipped: what came of it.
enum class Fate { kFrame, kTensor, kServed };

TEST_F(WeightClientTest, AThousandBitFlipsOnTheWayAreAThousandCaught) {
  const Published published = Publish(config_, 1, 5);
  std::mt19937_64 random(9);
  std::map<Fate, int> frames, past_frames;
  for (int flip = 0; flip < 1000; ++flip) {
    const std::uint64_t offset = random() % (published.bytes.size() - 64);
    wire::WeightsPull pull{5, offset, 64};
    std::vector<wire::Bytes> sent = wire::Encode(published.Chunk(pull).Encode());
    const std::size_t which = random() % sent.size();
    const std::size_t bit = random() % (sent[which].view.size() * 8);
    std::vector<std::byte> bytes(sent[which].view.begin(), sent[which].view.end());
    bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    sent[which] = wire::Bytes::Copy(std::span<const std::byte>(bytes));
    try {
      wire::Decode(sent);
      ++frames[Fate::kServed];
    } catch (const wire::ProtocolError&) {
      ++frames[Fate::kFrame];
    }
  }
  // Behind the frame's checksum: in memory of either side.
  const auto flipped = [&](bool honest_manifest) {
    Published changed = published;
    const std::size_t bit = random() % (changed.bytes.size() * 8);
    changed.bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    if (!honest_manifest) {
      for (auto& t : changed.manifest.tensors) {
        t.sha256 = configs::Sha256Hex(
            std::span<const std::byte>(changed.bytes).subspan(t.begin, t.end - t.begin));
      }
    }
    client_.Stop();
    client_.Start(changed.manifest);
    const std::uint64_t before = client_.corrupt();
    const auto pulls = client_.Pulls();
    for (const auto& pull : pulls) client_.Take(changed.Chunk(pull), false);
    return client_.corrupt() > before ? Fate::kTensor : Fate::kServed;
  };
  ASSERT_LE(published.bytes.size(), WeightClient::kWindow * WeightClient::kChunk);
  for (int flip = 0; flip < 1000; ++flip) ++past_frames[flipped(true)];
  std::printf("bit flips: %d of 1000 caught by the frame, %d of 1000 behind it by the tensor\n",
              frames[Fate::kFrame], past_frames[Fate::kTensor]);
  EXPECT_EQ(frames[Fate::kServed], 0);
  EXPECT_EQ(past_frames[Fate::kServed], 0);
  // The control: a manifest of the flipped bytes lets them through.
  int control = 0;
  for (int flip = 0; flip < 20; ++flip) control += flipped(false) == Fate::kServed;
  EXPECT_EQ(control, 20);
}

}  // namespace
}  // namespace temper::actor
