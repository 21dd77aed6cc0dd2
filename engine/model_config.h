#pragma once
// What config.json says about a model, checked: every field that changes the math is honoured or refused by name.
#include <cstdint>
#include <string>
#include <vector>

#include "configs/json.h"
#include "kernels/router.h"

namespace temper::engine {

struct ModelConfig {
  std::string model_type;  // deepseek_v2, deepseek_v3
  int vocab_size = 0, hidden_size = 0, intermediate_size = 0, moe_intermediate_size = 0;
  int num_layers = 0;       // num_hidden_layers
  int mtp_layers = 0;       // num_nextn_predict_layers
  int first_dense = 0;      // first_k_dense_replace
  int moe_layer_freq = 1;   // from first_dense on, layers whose number it divides are MoE
  bool attention_bias = false;  // of q_a_proj, kv_a_proj_with_mqa and o_proj
  int heads = 0;
  int q_lora_rank = 0;      // 0: one q_proj
  int kv_lora_rank = 0, qk_nope_dim = 0, qk_rope_dim = 0, v_dim = 0;
  int experts = 0, top_k = 0, shared_experts = 0, groups = 1, topk_groups = 1;
  kernels::RouterMethod router = kernels::RouterMethod::kNoauxTc;
  bool norm_topk_prob = true;
  float routed_scaling_factor = 1.0f;
  float rms_norm_eps = 1e-6f;
  bool tie_word_embeddings = false;
  bool scalar_head = false; // a reward model: score.weight [1, H] in place of lm_head, no MTP layers
  double rope_theta = 10000.0;
  bool yarn = false;
  double yarn_factor = 1, yarn_beta_fast = 32, yarn_beta_slow = 1, yarn_mscale = 1, yarn_mscale_all_dim = 0;
  int yarn_original_positions = 4096;
  int max_positions = 0;
  int bos_id = -1;
  std::vector<int> eos_ids;
  Json raw;                 // the file as read: written back with the weights

  /// MTP layers included.
  bool IsMoe(int layer) const { return layer >= first_dense && layer % moe_layer_freq == 0; }
  /// MoE layers among the first `layers`: the number of the next one in what reports experts.
  int MoeLayersBefore(int layer) const;
  int moe_layers() const { return MoeLayersBefore(num_layers); }
  bool has_router_bias() const { return router == kernels::RouterMethod::kNoauxTc; }
  kernels::RouterShape router_shape() const {
    return {experts, top_k, groups, topk_groups, norm_topk_prob, routed_scaling_factor, router};
  }
  int qk_dim() const { return qk_nope_dim + qk_rope_dim; }
  int latent_dim() const { return kv_lora_rank + qk_rope_dim; }
  /// Softmax scale with YaRN's m^2 (engine-facts D1).
  double attention_scale() const;
  /// [qk_rope_dim / 2] rotary frequencies, YaRN applied, and the amplitude of cos and sin (D2).
  std::vector<double> rope_frequencies() const;
  double rope_amplitude() const;
};

/// Parses a config.json text. Throws UserError naming the field: unsupported model_type, topk_method, scoring_func, mlp_bias,
/// quantization_config, hidden_act, rope type; values out of range or inconsistent.
ModelConfig ParseModelConfig(const Json& json, const std::string& where);
/// `scalar_head`: the folder must be a reward model's; otherwise it must not be one.
ModelConfig ReadModelConfig(const std::string& model_dir, bool scalar_head = false);

/// A language model's or a reward model's.
ModelConfig ReadAnyModelConfig(const std::string& model_dir);

/// The reward model with a language model's trunk: ...ForSequenceClassification with one label.
ModelConfig AsRewardModel(const ModelConfig& config);

struct TensorSpec {
  std::string name;               // as in the checkpoint
  std::vector<std::int64_t> shape;
  // kMtpLinear: a matrix that FP8 checkpoints leave in BF16. kBias: of a linear layer.
  enum class Kind { kLinear, kMtpLinear, kEmbedding, kNorm, kBias, kRouter, kRouterBias } kind;
  std::int64_t count() const;
};

/// Every tensor a checkpoint of this model has, main layers first, then MTP layers ("model.layers.<num_layers>...."), without
/// the MTP copies of the embedding and the head (shared with the main model; written and accepted on disk, see CopiedTensors).
std::vector<TensorSpec> RequiredTensors(const ModelConfig& config);

/// (copy, source) pairs of the published MTP layout: embed_tokens and shared_head.head of each MTP layer.
std::vector<std::pair<std::string, std::string>> CopiedTensors(const ModelConfig& config);

}  // namespace temper::engine
