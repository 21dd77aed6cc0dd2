#pragma once
// A small random policy and random packs for tests.
#include <random>

#include "learner/policy.h"
#include "tests/engine/tiny_model.h"

namespace temper::learner {

/// The distribution of engine::TinyWeights, written to the masters.
inline void FillTiny(Policy& policy, std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<float> normal;
  using Kind = engine::TensorSpec::Kind;
  for (const auto& entry : policy.parameters().entries()) {
    const float fan_in = float(entry.spec.shape.back());
    for (float& x : policy.parameters().MutableValue(entry)) {
      const float z = normal(rng);
      switch (entry.spec.kind) {
        case Kind::kNorm:
          x = 1.0f + 0.15f * z;
          break;
        case Kind::kRouterBias:
          x = 0.1f * z;
          break;
        case Kind::kEmbedding:
          x = z;
          break;
        default:
          x = 1.5f * z / std::sqrt(fan_in);
      }
    }
  }
  policy.Refresh();
}

inline std::unique_ptr<Policy> TinyPolicy(const engine::ModelConfig& config, std::uint64_t seed,
                                          int threads = 2, bool plain = false,
                                          const engine::Numerics& numerics = {},
                                          bool recompute = false,
                                          const std::string& device = "cpu") {
  Policy::Options options;
  options.numerics = numerics;
  options.threads = threads;
  options.plain = plain;
  options.recompute = recompute;
  options.device = device;
  auto policy = std::make_unique<Policy>(config, options);
  FillTiny(*policy, seed);
  return policy;
}

/// Every mode with every cache; FP32 scales stand in for a few.
inline std::vector<engine::Numerics> AllNumerics() {
  std::vector<engine::Numerics> all;
  for (const char* dtype : {"fp32", "bf16", "fp8", "fp8-w8a8"}) {
    for (const char* cache : {"fp32", "bf16", "fp8"}) {
      const char* scale = cache == std::string("bf16") ? "fp32" : "pow2";
      all.push_back(engine::ParseNumerics(dtype, cache, scale));
    }
  }
  return all;
}

/// With and without q_lora, and with biases, two MTP layers and a dense layer between MoE layers.
inline std::vector<engine::ModelConfig> PolicyConfigs() {
  Json other = engine::TinyConfig(true, 2).raw;
  other["attention_bias"] = true;
  other["moe_layer_freq"] = 2;
  return {engine::TinyConfig(true), engine::TinyConfig(false),
          engine::ParseModelConfig(other, "other")};
}

struct TinyBatch {
  std::shared_ptr<Pack> pack = std::make_shared<Pack>();
  Targets targets;  // about two thirds of the tokens that have a next one
};

inline TinyBatch RandomBatch(const engine::ModelConfig& config, const std::vector<int>& lengths,
                             std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  TinyBatch batch;
  for (int length : lengths) {
    std::vector<std::int32_t> ids(length);
    for (auto& id : ids) id = std::int32_t(rng() % std::uint64_t(config.vocab_size));
    const std::int32_t first = batch.pack->tokens();
    for (int t = 0; t + 1 < length; ++t) {
      if (rng() % 3 == 0) continue;
      batch.targets.row.push_back(first + t);
      batch.targets.target.push_back(ids[t + 1]);
    }
    batch.pack->Add(ids);
  }
  return batch;
}

/// Sum of -log p over the targets (and, `mtp` > 0, of the MTP layer's times it), gradients added to
/// the policy's.
inline double AddGradients(Policy& policy, const TinyBatch& batch, double mtp = 0) {
  Policy::Request request;
  request.mtp = mtp > 0;
  const Policy::Result result = policy.Forward(batch.pack, batch.targets, request);
  torch::Tensor loss = -result.logp.sum();
  for (const torch::Tensor& logp : result.mtp_logp) loss = loss - mtp * logp.sum();
  loss.backward();
  policy.CollectGradients();
  double sum = 0;
  for (std::int64_t i = 0; i < result.logp.numel(); ++i) sum -= result.logp.data_ptr<float>()[i];
  return sum;
}

inline std::vector<float> Gradients(Policy& policy) {
  return {policy.parameters().gradients(),
          policy.parameters().gradients() + policy.parameters().size()};
}

}  // namespace temper::learner
