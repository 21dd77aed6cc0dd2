// The modes: what each rounds, and that none of them breaks what a sample may rely on.
#include "engine/numerics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "configs/error.h"
#include "engine/engine.h"
#include "engine/forward.h"
#include "engine/latent_cache.h"
#include "kernels/bf16.h"
#include "kernels/cpu.h"
#include "tests/engine/results.h"
#include "tests/engine/tiny_model.h"

namespace temper::engine {
namespace {

/// Heads of 128: kv_b_proj stays in blocks; a feed-forward of 200: gate and up are two matrices.
ModelConfig WideConfig() {
  Json j = TinyConfig().raw;
  j["qk_nope_head_dim"] = 128;
  j["v_head_dim"] = 128;
  j["kv_lora_rank"] = 144;
  j["moe_intermediate_size"] = 128;
  j["intermediate_size"] = 200;
  return ParseModelConfig(j, "wide");
}

struct ModeCase {
  const char* dtype;
  const char* cache;
  const char* scale;
};
constexpr ModeCase kModes[] = {{"fp32", "fp32", "pow2"},    {"fp32", "fp8", "pow2"},
                               {"bf16", "bf16", "pow2"},    {"fp8", "fp32", "fp32"},
                               {"fp8", "bf16", "pow2"},     {"fp8", "fp8", "pow2"},
                               {"fp8-w8a8", "bf16", "pow2"}};

Numerics Of(const ModeCase& mode) { return ParseNumerics(mode.dtype, mode.cache, mode.scale); }

Results Generate(const std::shared_ptr<Weights>& weights, const EngineOptions& options,
                 bool experts) {
  Engine engine(weights, options);
  for (int g = 0; g < 3; ++g) {
    GroupRequest r;
    r.group = std::uint64_t(g);
    for (int i = 0; i < 3 + 19 * g; ++i) r.prompt.push_back((g * 31 + i * 17) % 97 + 3);
    r.samples = {0, 1, 2};
    r.seed = 5;
    r.max_new_tokens = 12;
    r.stop_ids = {1};
    r.experts = experts;
    engine.Add(std::move(r));
  }
  return Finish(engine);
}

bool Same(const Results& a, const Results& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [key, s] : a) {
    const FinishedSample& t = b.at(key);
    if (s.ids != t.ids || s.logp != t.logp || s.experts != t.experts) return false;
  }
  return true;
}

TEST(NumericsTest, EveryModeHasTheSameBitsOnEveryVariantBatchChunkAndThreadCount) {
  const kernels::Isa before = kernels::ActiveIsa();
  for (const ModelConfig& config : {TinyConfig(), WideConfig()}) {
    std::vector<Results> all;
    for (const ModeCase& mode : kModes) {
      const auto weights = TinyWeights(config, 5, Of(mode));
      EngineOptions o;
      o.speculation = Speculation::kOff;
      const Results expected = Generate(weights, o, true);
      for (kernels::Isa isa : {kernels::Isa::kScalar, kernels::Isa::kAvx2, kernels::Isa::kAvx512}) {
        if (!kernels::Supports(isa)) continue;
        kernels::ForceIsa(isa);
        EngineOptions odd;
        odd.threads = 3;
        odd.chunk = 7;
        odd.max_rows = 4;
        odd.cache_tokens = 160;
        odd.speculation = Speculation::kAlways;
        EXPECT_TRUE(Same(expected, Generate(weights, odd, true)))
            << Of(mode).id() << " " << kernels::IsaName(isa);
      }
      kernels::ForceIsa(before);
      for (const Results& other : all) EXPECT_FALSE(Same(expected, other)) << Of(mode).id();
      all.push_back(expected);
    }
  }
}

TEST(NumericsTest, CodesGoIntoFp8SlotsUnchangedAndAreDequantisedForOthers) {
  const ModelConfig config = WideConfig();
  kernels::ThreadPool pool(1);
  for (const char* name :
       {"model.layers.1.self_attn.kv_b_proj.weight", "model.layers.0.mlp.up_proj.weight",
        "model.layers.2.mlp.experts.3.gate_proj.weight"}) {
    for (const ModeCase& mode : kModes) {
      auto from_codes = TinyWeights(config, 5, Of(mode)),
           from_values = TinyWeights(config, 5, Of(mode));
      TensorSpec spec;
      for (const TensorSpec& s : RequiredTensors(config)) {
        if (s.name == name) spec = s;
      }
      const int n = int(spec.shape[0]), k = int(spec.shape[1]);
      const int blocks = (n + 127) / 128 * ((k + 127) / 128);
      std::mt19937_64 rng(3);
      std::normal_distribution<float> normal;
      std::vector<float> values(spec.count()), scales(blocks);
      for (float& x : values) x = 0.1f * normal(rng);
      std::vector<std::uint8_t> codes(values.size());
      kernels::QuantizeWeight(values.data(), k, n, k, Of(mode).scale, codes.data(), k,
                              scales.data(), pool);
      kernels::DequantizeWeight(codes.data(), k, n, k, scales.data(), values.data(), k, pool);
      from_codes->Set(name, TensorData{{}, codes, scales});
      // Quantising what codes stand for gives the codes back.
      from_values->Set(name, values);
      EngineOptions o;
      EXPECT_TRUE(Same(Generate(from_codes, o, true), Generate(from_values, o, true)))
          << name << " " << Of(mode).id();
      codes[5] = 0x7f;
      EXPECT_THROW(from_codes->Set(name, TensorData{{}, codes, scales}), UserError);
      codes[5] = 0x10;
      scales[0] = -1;
      EXPECT_THROW(from_codes->Set(name, TensorData{{}, codes, scales}), UserError);
      scales[0] = 1;
      scales.push_back(1);
      EXPECT_THROW(from_codes->Set(name, TensorData{{}, codes, scales}), UserError);
    }
  }
}

TEST(NumericsTest, NamesAreParsedOrRefused) {
  EXPECT_EQ(ParseNumerics("fp8-w8a8", "bf16", "fp32").id(), "canon-1/fp8-w8a8/cache-bf16");
  EXPECT_EQ(Numerics().id(), "canon-1/fp32/cache-fp32");
  EXPECT_THROW(ParseNumerics("fp16", "fp32", "pow2"), UserError);
  EXPECT_THROW(ParseNumerics("fp32", "int8", "pow2"), UserError);
  EXPECT_THROW(ParseNumerics("fp32", "fp32", "ue8m0"), UserError);
}

}  // namespace
}  // namespace temper::engine
