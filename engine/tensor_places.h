#pragma once
// Where in a model folder each tensor of the model lies, and every disagreement between the two.
#include <cstdint>
#include <string>
#include <vector>

#include "engine/model_config.h"
#include "engine/safetensors.h"

namespace temper::engine {

/// One required tensor in the files: a tensor of its own, or a part of a layer's stacked experts.
struct TensorPlace {
  std::string tensor;            // name in the files
  Dtype dtype = Dtype::kF32;     // F32, BF16, F16 or F8_E4M3
  std::int64_t first = 0;        // its element where ours begins
  std::string scale;             // of F8_E4M3: the tensor of multipliers
  std::int64_t first_scale = 0;  // its element where ours begin
};

/// A place for each of `specs` (RequiredTensors). Experts may stand as published, a matrix each, or stacked as transformers holds
/// them: experts.gate_up_proj [E, 2I, H] and experts.down_proj [E, H, I]. Throws one UserError that lists what is missing,
/// unknown, of another shape or dtype, or differs from the tensor it copies.
std::vector<TensorPlace> FindTensors(const std::string& dir, const CheckpointReader& reader,
                                     const ModelConfig& config, const std::vector<TensorSpec>& specs);

}  // namespace temper::engine
