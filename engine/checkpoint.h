#pragma once
// A model folder against the table of tensors it must hold: read a tensor at a time, written back in Hugging Face layout.
#include <functional>
#include <span>
#include <string>

#include "engine/model_config.h"
#include "engine/safetensors.h"

namespace temper::engine {

/// A tensor as a checkpoint or a learner has it: FP32 values, or E4M3 codes with the multipliers of
/// their 128 x 128 blocks.
struct TensorData {
  std::span<const float> values;
  std::span<const std::uint8_t> codes;
  std::span<const float> scales;
};

/// Gives every required tensor, in RequiredTensors order: E4M3 blocks (F8_E4M3 with NAME_scale_inv beside it) as they are, all
/// else as FP32. All disagreements (missing, unknown, shapes, dtypes, MTP copies that differ from their source) are listed in
/// one UserError before the first callback. Non-finite values are refused by name.
void ReadCheckpoint(const std::string& model_dir, const ModelConfig& config,
                    const std::function<void(const TensorSpec&, const TensorData&)>& give);

/// The same with blocks dequantised: code times scale, in FP32.
void ReadCheckpointValues(const std::string& model_dir, const ModelConfig& config,
                          const std::function<void(const TensorSpec&, std::span<const float>)>& give);

/// Writes `dir`/model.safetensors (sharded past `shard_bytes`, with index), config.json (config.raw with torch_dtype set), and copies
/// tokenizer.json, tokenizer_config.json, chat_template.jinja, generation_config.json from `tokenizer_dir` where present.
/// `get` is called in RequiredTensors order. e_score_correction_bias stays F32. Every file is fsynced; dir must exist.
void WriteCheckpoint(const std::string& dir, const ModelConfig& config, Dtype dtype, const std::string& tokenizer_dir,
                     const std::function<std::span<const float>(const TensorSpec&)>& get,
                     std::uint64_t shard_bytes = std::uint64_t{4} << 30);

/// A tensor's bytes as they are to lie on disk; F8_E4M3 with the F32 multipliers of its blocks (NAME_scale_inv).
struct StoredTensor {
  std::span<const std::byte> bytes;
  std::span<const std::byte> scales;
};

/// The same with each tensor's own dtype, nothing converted: `dtype` is asked for every tensor first, then `get` in
/// RequiredTensors order. Where a tensor is F8_E4M3, config.json says so in quantization_config.
void WriteCheckpoint(const std::string& dir, const ModelConfig& config,
                     const std::function<Dtype(const TensorSpec&)>& dtype, const std::string& tokenizer_dir,
                     const std::function<StoredTensor(const TensorSpec&)>& get,
                     std::uint64_t shard_bytes = std::uint64_t{4} << 30);

/// `temper init`: a random model from an architecture file (a config.json without weights) and a tokenizer folder.
/// Weights: normal(0, initializer_range) from a counter-based generator keyed by (seed, tensor name); norms 1; router bias 0.
/// dtype fp32 or bf16. `out` must not exist; it appears whole or not at all.
void InitModel(const std::string& arch_file, const std::string& tokenizer_dir, std::uint64_t seed, Dtype dtype,
               const std::string& out);

}  // namespace temper::engine
