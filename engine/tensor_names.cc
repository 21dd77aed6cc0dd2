// The table of tensors of a DeepSeek checkpoint, by their published names.
#include <string>
#include <utility>
#include <vector>

#include "engine/model_config.h"

namespace temper::engine {
namespace {

using Kind = TensorSpec::Kind;

class Table {
 public:
  explicit Table(const ModelConfig& config) : c_(config) {}

  void Add(std::string name, std::vector<std::int64_t> shape, Kind kind) {
    specs_.push_back({std::move(name), std::move(shape), kind});
  }
  void AddLayer(int i) {
    const std::string p = "model.layers." + std::to_string(i) + ".";
    Add(p + "input_layernorm.weight", {c_.hidden_size}, Kind::kNorm);
    AddAttention(p + "self_attn.");
    Add(p + "post_attention_layernorm.weight", {c_.hidden_size}, Kind::kNorm);
    if (!c_.IsMoe(i)) {
      AddMlp(p + "mlp.", c_.intermediate_size);
      return;
    }
    Add(p + "mlp.gate.weight", {c_.experts, c_.hidden_size}, Kind::kRouter);
    if (c_.has_router_bias())
      Add(p + "mlp.gate.e_score_correction_bias", {c_.experts}, Kind::kRouterBias);
    for (int e = 0; e < c_.experts; ++e) {
      AddMlp(p + "mlp.experts." + std::to_string(e) + ".", c_.moe_intermediate_size);
    }
    AddMlp(p + "mlp.shared_experts.", std::int64_t{c_.shared_experts} * c_.moe_intermediate_size);
  }
  std::vector<TensorSpec> Take() { return std::move(specs_); }

 private:
  void AddAttention(const std::string& a) {
    const std::int64_t heads = c_.heads;
    if (c_.q_lora_rank == 0) {
      Add(a + "q_proj.weight", {heads * c_.qk_dim(), c_.hidden_size}, Kind::kLinear);
    } else {
      Add(a + "q_a_proj.weight", {c_.q_lora_rank, c_.hidden_size}, Kind::kLinear);
      AddBias(a + "q_a_proj.bias", c_.q_lora_rank);
      Add(a + "q_a_layernorm.weight", {c_.q_lora_rank}, Kind::kNorm);
      Add(a + "q_b_proj.weight", {heads * c_.qk_dim(), c_.q_lora_rank}, Kind::kLinear);
    }
    Add(a + "kv_a_proj_with_mqa.weight", {c_.latent_dim(), c_.hidden_size}, Kind::kLinear);
    AddBias(a + "kv_a_proj_with_mqa.bias", c_.latent_dim());
    Add(a + "kv_a_layernorm.weight", {c_.kv_lora_rank}, Kind::kNorm);
    Add(a + "kv_b_proj.weight", {heads * (c_.qk_nope_dim + c_.v_dim), c_.kv_lora_rank},
        Kind::kLinear);
    Add(a + "o_proj.weight", {c_.hidden_size, heads * c_.v_dim}, Kind::kLinear);
    AddBias(a + "o_proj.bias", c_.hidden_size);
  }
  void AddBias(const std::string& name, std::int64_t width) {
    if (c_.attention_bias) Add(name, {width}, Kind::kBias);
  }
  void AddMlp(const std::string& p, std::int64_t inter) {
    Add(p + "gate_proj.weight", {inter, c_.hidden_size}, Kind::kLinear);
    Add(p + "up_proj.weight", {inter, c_.hidden_size}, Kind::kLinear);
    Add(p + "down_proj.weight", {c_.hidden_size, inter}, Kind::kLinear);
  }

  const ModelConfig& c_;
  std::vector<TensorSpec> specs_;
};

}  // namespace

std::int64_t TensorSpec::count() const {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

std::vector<TensorSpec> RequiredTensors(const ModelConfig& config) {
  Table table(config);
  const std::int64_t vocab = config.vocab_size, hidden = config.hidden_size;
  table.Add("model.embed_tokens.weight", {vocab, hidden}, Kind::kEmbedding);
  for (int i = 0; i < config.num_layers; ++i) table.AddLayer(i);
  table.Add("model.norm.weight", {hidden}, Kind::kNorm);
  if (config.scalar_head) {
    table.Add("score.weight", {1, hidden}, Kind::kEmbedding);
  } else if (!config.tie_word_embeddings) {
    table.Add("lm_head.weight", {vocab, hidden}, Kind::kEmbedding);
  }
  for (int i = config.num_layers; i < config.num_layers + config.mtp_layers; ++i) {
    const std::string p = "model.layers." + std::to_string(i) + ".";
    table.Add(p + "enorm.weight", {hidden}, Kind::kNorm);
    table.Add(p + "hnorm.weight", {hidden}, Kind::kNorm);
    table.Add(p + "eh_proj.weight", {hidden, 2 * hidden}, Kind::kMtpLinear);
    table.AddLayer(i);
    table.Add(p + "shared_head.norm.weight", {hidden}, Kind::kNorm);
  }
  return table.Take();
}

std::vector<std::pair<std::string, std::string>> CopiedTensors(const ModelConfig& config) {
  const std::string embed = "model.embed_tokens.weight";
  const std::string head = config.tie_word_embeddings ? embed : "lm_head.weight";
  std::vector<std::pair<std::string, std::string>> copies;
  for (int i = config.num_layers; i < config.num_layers + config.mtp_layers; ++i) {
    const std::string p = "model.layers." + std::to_string(i) + ".";
    copies.emplace_back(p + "embed_tokens.weight", embed);
    copies.emplace_back(p + "shared_head.head.weight", head);
  }
  return copies;
}

}  // namespace temper::engine
