#include <algorithm>

#include "configs/error.h"
#include "configs/sha256.h"
#include "kernels/bf16.h"
#include "kernels/fp8.h"
#include "tests/actor/weight_client_fixture.h"

namespace temper::actor {
namespace {

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

}  // namespace
}  // namespace temper::actor
