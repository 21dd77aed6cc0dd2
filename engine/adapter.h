#pragma once
// Low-rank adapters (LoRA) in PEFT's layout: adapter_config.json and adapter_model.safetensors.
#include <cstdint>
#include <string>
#include <vector>

#include "engine/model_config.h"
#include "engine/weights.h"
#include "kernels/thread_pool.h"

namespace temper::engine {

/// adapter_config.json, as far as it is honoured. What changes the meaning and is not here (DoRA, trained biases, modules saved
/// whole, ranks of their own, Conv1D weights) is refused by name.
struct AdapterConfig {
  int r = 0;
  double lora_alpha = 8;
  bool use_rslora = false;
  std::vector<std::string> target_modules;
  std::string base_model;  // base_model_name_or_path

  /// What the product B A counts: lora_alpha / r, with use_rslora lora_alpha / sqrt(r).
  float scale() const;
  /// Whether a weight NAME.weight gets an adapter: NAME is one of target_modules or ends in .TARGET, as PEFT matches lists.
  bool Targets(const std::string& weight) const;
};

/// The two factors of one weight [N, K].
struct AdapterMatrix {
  std::string weight;       // model.layers.0.self_attn.o_proj.weight
  std::vector<float> a, b;  // [r, K], [N, r]
};

AdapterConfig ReadAdapterConfig(const std::string& dir);

/// Every pair of the folder, in the order of `specs` (RequiredTensors of the base model); F32, BF16 or F16. Throws UserError naming
/// a tensor that is no adapter of the model's matrices, lacks its partner or has another shape.
std::vector<AdapterMatrix> ReadAdapter(const std::string& dir, const AdapterConfig& config,
                                       const std::vector<TensorSpec>& specs);

/// Writes both files into `dir`, fsynced; loads in PEFT (0.13 to 0.17: task type CAUSAL_LM, LORA, bias "none").
void WriteAdapter(const std::string& dir, const AdapterConfig& config, const std::vector<AdapterMatrix>& matrices);

/// B A of one weight, rows at a time: the merge that training and `temper convert --adapter` share, bit for bit.
class AdapterProduct {
 public:
  /// a [r, k], copied.
  AdapterProduct(const float* a, int r, int k);
  /// w [rows, k] += scale * (b [rows, r] A), the product as kernels::Linear sums it, then one multiplication and one addition.
  void AddTo(float* w, const float* b, std::int64_t rows, float scale, kernels::ThreadPool& pool) const;

 private:
  int r_, k_;
  AlignedFloats packed_;
};

}  // namespace temper::engine
