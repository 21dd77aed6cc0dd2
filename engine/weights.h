#pragma once
// The packed weights of a model: slots by name, derived tensors rebuilt with their source.
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/checkpoint.h"
#include "engine/memory.h"
#include "engine/model_config.h"
#include "engine/numerics.h"
#include "kernels/linear.h"

namespace temper::engine {

struct PackedLinear {
  AlignedBytes storage;
  std::vector<float> scale;  // FP8: [ceil(n/128)][ceil(k/128)] times 2^8
  int n = 0, k = 0;
  kernels::WeightType type = kernels::WeightType::kF32;
  kernels::LinearWeight view() const {
    return {storage.data(), n, k, type, scale.empty() ? nullptr : scale.data()};
  }
};

struct MlpWeights {          // one gated MLP
  PackedLinear gate_up;      // [2I, H]: gate rows first; FP8 with I not a multiple of 128: the gate alone
  PackedLinear up;           // [I, H] then, else empty
  PackedLinear down;         // [H, I]
};

struct LayerWeights {
  std::vector<float> input_norm, post_norm;   // [H]
  PackedLinear q;            // q_lora_rank 0: q_proj [heads*(P+R), H]
  PackedLinear q_a, q_b;     // otherwise
  std::vector<float> q_a_bias;  // [Q], this and the other biases with attention_bias only
  std::vector<float> q_a_norm;
  PackedLinear kv_a;         // [L+R, H]
  std::vector<float> kv_a_bias;  // [L+R]
  std::vector<float> kv_a_norm;
  std::vector<PackedLinear> w_uk;  // a head: [L, P]: q_nope -> latent query (from kv_b_proj)
  std::vector<PackedLinear> w_uv;  // a head: [V, L]: latent output -> value (from kv_b_proj)
  PackedLinear o;            // [H, heads*V]
  std::vector<float> o_bias; // [H]
  bool moe = false;
  MlpWeights mlp;            // dense layers
  PackedLinear router;       // [E, H]
  std::vector<float> router_bias;  // [E]
  std::vector<MlpWeights> experts;
  MlpWeights shared;
  // MTP layers only:
  std::vector<float> enorm, hnorm, head_norm;
  PackedLinear eh;           // [H, 2H]: embedding first
};

class Weights {
 public:
  /// Allocates every slot; nothing is set.
  explicit Weights(const ModelConfig& config, const Numerics& numerics = {});

  /// Sets one tensor by its checkpoint name, rounded or quantised as the mode says, and rebuilds what derives from it.
  /// O(log n) lookup. Codes go unchanged into FP8 slots and are dequantised for others.
  /// Throws UserError for an unknown name, a wrong count, or codes and multipliers that can't be weights.
  void Set(const std::string& name, std::span<const float> values) { Set(name, TensorData{values, {}, {}}); }
  void Set(const std::string& name, const TensorData& data);
  /// Whether Set keeps codes of this tensor as they are: the mode's FP8 matrices.
  bool TakesCodes(const std::string& name) const;
  /// Throws UserError naming tensors never set.
  void CheckComplete() const;
  /// A checkpoint's weights, streamed: beside the packed weights a few MB are held.
  static Weights Load(const std::string& model_dir, const ModelConfig& config, const Numerics& numerics = {});

  const ModelConfig& config() const { return config_; }
  const Numerics& numerics() const { return numerics_; }
  std::span<const float> embedding() const {  // [V, H], fp32 only
    return {embedding_.data(), embedding_.size()};
  }
  const std::uint16_t* embedding_rows_bf16() const { return embedding_bf16(); }  // [V, H], all other modes
  /// Row `id` of the embedding, [H], in any mode.
  void Embed(std::int32_t id, float* out) const;
  const std::vector<float>& norm() const { return norm_; }
  const PackedLinear& head() const { return head_; }
  const LayerWeights& layer(int i) const { return layers_[i]; }  // MTP layers at num_layers + j
  /// Bytes of all packed weights.
  std::size_t bytes() const;
  /// Bytes that a decoding step of so many rows reads: every dense weight and the head once, of E experts as many as
  /// independent routing chooses: E (1 - (1 - k/E)^rows) a layer. MTP layers are not in it.
  double StepBytes(int rows) const;

 private:
  struct Slot;
  class Builder;
  /// Rows of a slot from any form: quantised, dequantised or rounded as the mode says.
  void Put(const Slot& slot, const RowData& data);
  /// The matrices that kv_b_proj of layer i becomes.
  void AllocateHeads(int i, kernels::WeightType type);
  std::uint16_t* embedding_bf16() { return reinterpret_cast<std::uint16_t*>(embedding_bf16_.data()); }
  const std::uint16_t* embedding_bf16() const { return reinterpret_cast<const std::uint16_t*>(embedding_bf16_.data()); }
  void SetVector(std::vector<float>& out, const float* values, bool rounds) const;
  ModelConfig config_;
  Numerics numerics_;
  Arena arena_;  // of the matrices
  AlignedFloats embedding_;
  std::vector<float> norm_;
  AlignedBytes embedding_bf16_;  // instead of embedding_ where the mode rounds
  PackedLinear head_;
  std::vector<LayerWeights> layers_;
  std::map<std::string, std::shared_ptr<Slot>> slots_;
};

}  // namespace temper::engine
