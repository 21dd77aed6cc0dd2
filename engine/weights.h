#pragma once
// The packed weights of a model: slots by name, derived tensors rebuilt with their source.
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/model_config.h"
#include "kernels/linear.h"

namespace temper::engine {

/// 64-byte aligned floats.
class AlignedFloats {
 public:
  AlignedFloats() = default;
  explicit AlignedFloats(std::size_t count);
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  std::size_t size() const { return size_; }

 private:
  struct Free { void operator()(float* p) const; };
  std::unique_ptr<float, Free> data_;
  std::size_t size_ = 0;
};

struct PackedLinear {
  AlignedFloats storage;
  int n = 0, k = 0;
  kernels::LinearWeight view() const { return {storage.data(), n, k}; }
};

struct MlpWeights {          // one gated MLP
  PackedLinear gate_up;      // [2I, H]: gate rows first
  PackedLinear down;         // [H, I]
};

struct LayerWeights {
  std::vector<float> input_norm, post_norm;   // [H]
  PackedLinear q;            // q_lora_rank 0: q_proj [heads*(P+R), H]
  PackedLinear q_a, q_b;     // otherwise
  std::vector<float> q_a_norm;
  PackedLinear kv_a;         // [L+R, H]
  std::vector<float> kv_a_norm;
  std::vector<PackedLinear> w_uk;  // a head: [L, P]: q_nope -> latent query (from kv_b_proj)
  std::vector<PackedLinear> w_uv;  // a head: [V, L]: latent output -> value (from kv_b_proj)
  PackedLinear o;            // [H, heads*V]
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
  explicit Weights(const ModelConfig& config);

  /// Sets one tensor by its checkpoint name and rebuilds what derives from it. O(log n) lookup, no allocation.
  /// Throws UserError for an unknown name or a wrong count.
  void Set(const std::string& name, std::span<const float> values);
  /// Throws UserError naming tensors never set.
  void CheckComplete() const;
  static Weights Load(const std::string& model_dir, const ModelConfig& config);

  const ModelConfig& config() const { return config_; }
  const std::vector<float>& embedding() const { return embedding_; }  // [V, H]
  const std::vector<float>& norm() const { return norm_; }
  const PackedLinear& head() const { return head_; }
  const LayerWeights& layer(int i) const { return layers_[i]; }  // MTP layers at num_layers + j

 private:
  struct Slot;
  ModelConfig config_;
  std::vector<float> embedding_, norm_;
  PackedLinear head_;
  std::vector<LayerWeights> layers_;
  std::map<std::string, std::shared_ptr<Slot>> slots_;
};

}  // namespace temper::engine
