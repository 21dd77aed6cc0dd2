#include "actor/weight_client.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "configs/error.h"
#include "kernels/bf16.h"
#include "kernels/fp8.h"
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
