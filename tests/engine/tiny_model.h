#pragma once
// A small random model in memory for tests: odd sizes on purpose, so that every tail is ragged.
#include <cmath>
#include <memory>
#include <random>

#include "engine/weights.h"

namespace temper::engine {

inline ModelConfig TinyConfig(bool q_lora = true, int mtp = 1) {
  Json j = {{"architectures", {"DeepseekV3ForCausalLM"}},
            {"model_type", "deepseek_v3"},
            {"vocab_size", 101},
            {"hidden_size", 72},
            {"intermediate_size", 100},
            {"moe_intermediate_size", 40},
            {"num_hidden_layers", 3},
            {"num_nextn_predict_layers", mtp},
            {"first_k_dense_replace", 1},
            {"moe_layer_freq", 1},
            {"num_attention_heads", 3},
            {"num_key_value_heads", 3},
            {"kv_lora_rank", 24},
            {"qk_nope_head_dim", 20},
            {"qk_rope_head_dim", 8},
            {"v_head_dim", 18},
            {"n_routed_experts", 8},
            {"num_experts_per_tok", 3},
            {"n_shared_experts", 1},
            {"n_group", 4},
            {"topk_group", 2},
            {"topk_method", "noaux_tc"},
            {"scoring_func", "sigmoid"},
            {"norm_topk_prob", true},
            {"routed_scaling_factor", 2.5},
            {"rms_norm_eps", 1e-6},
            {"rope_theta", 10000},
            {"max_position_embeddings", 2048},
            {"hidden_act", "silu"},
            {"tie_word_embeddings", false},
            {"attention_bias", false},
            {"bos_token_id", 0},
            {"eos_token_id", 1}};
  j["q_lora_rank"] = q_lora ? Json(28) : Json(nullptr);
  return ParseModelConfig(j, "tiny");
}

/// Normal weights with gains that keep activations and logits of order one.
inline void FillTiny(Weights* weights, std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<float> normal;
  for (const TensorSpec& spec : RequiredTensors(weights->config())) {
    std::vector<float> values(spec.count());
    const float fan_in = float(spec.shape.back());
    for (float& x : values) {
      switch (spec.kind) {
        case TensorSpec::Kind::kNorm:
          x = 1.0f + 0.15f * normal(rng);
          break;
        case TensorSpec::Kind::kRouterBias:
          x = 0.1f * normal(rng);
          break;
        case TensorSpec::Kind::kEmbedding:
          x = normal(rng);
          break;
        default:
          x = 1.5f * normal(rng) / std::sqrt(fan_in);
      }
    }
    weights->Set(spec.name, values);
  }
}

inline std::shared_ptr<Weights> TinyWeights(const ModelConfig& config, std::uint64_t seed,
                                            const Numerics& numerics = {}) {
  auto weights = std::make_shared<Weights>(config, numerics);
  FillTiny(weights.get(), seed);
  weights->CheckComplete();
  return weights;
}

}  // namespace temper::engine
