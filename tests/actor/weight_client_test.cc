#include "actor/weight_client.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "configs/error.h"
#include "engine/canary.h"
#include "kernels/bf16.h"
#include "kernels/fp8.h"
#include "tests/actor/fixture.h"
#include "wire/patch.h"
#include "wire/shared_bytes.h"

namespace temper::actor {
namespace {

std::vector<float> Embedding(const engine::Weights& weights) {
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

/// Two dense matrices of a model as E4M3 codes, the rest as BF16.
Published PublishFp8(const engine::ModelConfig& config) {
  const Published from = Publish(config, 1, 5, "BF16");
  Published out;
  out.manifest = from.manifest;
  out.manifest.tensors.clear();
  const auto add = [&](wire::WeightsManifest::Tensor t, std::span<const std::byte> bytes) {
    t.begin = out.bytes.size();
    out.bytes.insert(out.bytes.end(), bytes.begin(), bytes.end());
    t.end = out.bytes.size();
    t.sha256 = configs::Sha256Hex(bytes);
    out.manifest.tensors.push_back(std::move(t));
  };
  kernels::ThreadPool pool(1);
  for (wire::WeightsManifest::Tensor t : from.manifest.tensors) {
    const std::span<const std::byte> bytes(from.bytes.data() + t.begin, t.end - t.begin);
    if (t.name.find("layers.0.mlp.gate_proj") == t.name.npos &&
        t.name.find("layers.1.self_attn.o_proj") == t.name.npos) {
      add(t, bytes);
      continue;
    }
    const int n = int(t.shape[0]), k = int(t.shape[1]);
    std::vector<float> values(std::size_t(n) * k), scales(((n + 127) / 128) * ((k + 127) / 128));
    kernels::DecodeBf16(reinterpret_cast<const std::uint16_t*>(bytes.data()), n * k, values.data());
    std::vector<std::uint8_t> codes(values.size());
    kernels::QuantizeWeight(values.data(), k, n, k, kernels::ScaleRecipe::kPow2, codes.data(), k,
                            scales.data(), pool);
    t.dtype = "F8_E4M3";
    add(t, std::as_bytes(std::span(codes)));
    t.dtype = "F32";
    t.name += "_scale_inv";
    t.shape = {(n + 127) / 128, (k + 127) / 128};
    add(t, std::as_bytes(std::span(scales)));
  }
  out.manifest.bytes = out.bytes.size();
  return out;
}

TEST_F(WeightClientTest, PutsCodesUnchangedIntoAnFp8Model) {
  const engine::Numerics fp8 = engine::ParseNumerics("fp8", "fp32", "pow2");
  auto weights = std::make_shared<engine::Weights>(config_, fp8);
  client_ = WeightClient(weights);
  const Published published = PublishFp8(config_);
  client_.Start(published.manifest);
  Serve(published);
  ASSERT_TRUE(client_.complete());
  client_.Apply();
  weights->CheckComplete();
  // The same bytes by hand.
  engine::Weights other(config_, fp8);
  for (std::size_t i = 0; i < published.manifest.tensors.size(); ++i) {
    const auto& t = published.manifest.tensors[i];
    if (t.dtype != "F8_E4M3") continue;
    const auto& s = published.manifest.tensors[i + 1];
    std::vector<float> scales((s.end - s.begin) / 4);
    std::memcpy(scales.data(), published.bytes.data() + s.begin, s.end - s.begin);
    other.Set(t.name, {{},
                       {reinterpret_cast<const std::uint8_t*>(published.bytes.data() + t.begin),
                        t.end - t.begin},
                       scales});
  }
  const auto same = [](const engine::PackedLinear& a, const engine::PackedLinear& b) {
    return a.scale == b.scale &&
           std::memcmp(a.storage.data(), b.storage.data(), a.storage.size()) == 0;
  };
  EXPECT_TRUE(same(weights->layer(0).mlp.gate_up, other.layer(0).mlp.gate_up));
  EXPECT_TRUE(same(weights->layer(1).o, other.layer(1).o));
  EXPECT_FALSE(same(weights->layer(2).o, other.layer(2).o));  // never set there
}

TEST_F(WeightClientTest, RefusesCodesWithoutTheirScales) {
  const Published published = PublishFp8(config_);
  const auto error_of = [&](const auto& change) -> std::string {
    wire::WeightsManifest manifest = published.manifest;
    const auto scale = std::find_if(manifest.tensors.begin(), manifest.tensors.end(),
                                    [](const auto& t) { return t.name.ends_with("_scale_inv"); });
    change(manifest, scale);
    try {
      client_.Start(manifest);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(error_of([](auto&, auto) {}), "");
  client_.Stop();
  EXPECT_NE(error_of([](auto& m, auto s) { m.tensors.erase(s); }).find("_scale_inv"),
            std::string::npos);
  EXPECT_NE(error_of([](auto&, auto s) { s->dtype = "BF16"; }).find("BF16"), std::string::npos);
  EXPECT_NE(error_of([](auto&, auto s) { s->shape[0] += 1; }).find("_scale_inv"),
            std::string::npos);
  EXPECT_NE(error_of([](auto&, auto s) { s->end -= 4; }).find("bytes"), std::string::npos);
  EXPECT_FALSE(client_.pulling());
}

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
