#pragma once
// A model folder against the table of tensors it must hold: read in rows or whole tensors, written back in Hugging Face layout.
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/model_config.h"
#include "engine/safetensors.h"
#include "kernels/fp8.h"

namespace temper::engine {

/// A tensor as a checkpoint or a learner has it: FP32 values, or E4M3 codes with the multipliers of
/// their 128 x 128 blocks.
struct TensorData {
  std::span<const float> values;
  std::span<const std::uint8_t> codes;
  std::span<const float> scales;
};

/// Whole rows [first, first + rows) of a matrix, or a vector as one row, in the form they are stored: FP32 values, BF16, or E4M3
/// codes (then `first` is a multiple of 128) with the multipliers [ceil(rows/128)][ceil(k/128)] of their blocks.
struct RowData {
  std::int64_t first = 0, rows = 0;
  std::span<const float> values;
  std::span<const std::uint16_t> bf16;
  std::span<const std::uint8_t> codes;
  std::span<const float> scales;
};

/// Rows and columns of a tensor; a vector is one row.
std::int64_t Rows(const TensorSpec& spec);
std::int64_t Columns(const TensorSpec& spec);

/// The weights of a model folder, read a few rows at a time into one small buffer.
class CheckpointRows {
 public:
  /// All disagreements with `config` (missing, unknown, shapes, dtypes, MTP copies that differ from their source) are listed in
  /// one UserError.
  CheckpointRows(const std::string& model_dir, const ModelConfig& config);
  ~CheckpointRows();

  const std::vector<TensorSpec>& specs() const;  // RequiredTensors
  bool coded(std::size_t spec) const;            // E4M3
  /// Bytes of a row in the file.
  std::int64_t RowBytes(std::size_t spec) const;
  /// Rows [first, first + rows) of specs()[spec], valid until the next call. F16 comes as values. Refuses non-finite values, NaN
  /// codes and scales that can't be, by name and place.
  RowData Read(std::size_t spec, std::int64_t first, std::int64_t rows);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Gives every required tensor, in RequiredTensors order: E4M3 blocks (F8_E4M3 with NAME_scale_inv beside it) as they are, all
/// else as FP32. Errors as CheckpointRows, the list of disagreements before the first callback.
void ReadCheckpoint(const std::string& model_dir, const ModelConfig& config,
                    const std::function<void(const TensorSpec&, const TensorData&)>& give);

/// The same with blocks dequantised: code times scale, in FP32.
void ReadCheckpointValues(const std::string& model_dir, const ModelConfig& config,
                          const std::function<void(const TensorSpec&, std::span<const float>)>& give);

/// How weights are stored: F32, BF16, or F8_E4M3, where the matrices of layers are codes in 128 x 128 blocks with F32 multipliers
/// and all else is BF16 (as published for V3).
struct Storage {
  Storage(Dtype d = Dtype::kF32, kernels::ScaleRecipe s = kernels::ScaleRecipe::kFp32) : dtype(d), scale(s) {}
  Dtype dtype;
  kernels::ScaleRecipe scale;
};
/// "fp32", "bf16", "fp8"; "fp32", "pow2". Throws UserError "<where>: ..." for any other text.
Storage ParseStorage(const std::string& dtype, const std::string& scale, const std::string& where);

constexpr std::uint64_t kShardBytes = std::uint64_t{4} << 30;

/// Gives rows of a tensor, valid until its next call: at most 128 of them, in order, from 0 again for each copy.
using RowSource = std::function<RowData(const TensorSpec&, std::int64_t first, std::int64_t rows)>;

/// Writes `dir`/model.safetensors (sharded past `shard_bytes`, with index), config.json (config.raw with torch_dtype and
/// quantization_config set), and copies tokenizer.json, tokenizer_config.json, chat_template.jinja, generation_config.json from
/// `tokenizer_dir` where present. Holds a few rows at a time. Codes stay as they are where they are codes already, under kPow2 only
/// those of blocks whose multiplier is a power of two. e_score_correction_bias stays F32. Every file is fsynced; dir must exist.
void WriteCheckpoint(const std::string& dir, const ModelConfig& config, const Storage& storage, const std::string& tokenizer_dir,
                     const RowSource& get, std::uint64_t shard_bytes = kShardBytes);

/// The same from whole tensors in memory.
void WriteCheckpoint(const std::string& dir, const ModelConfig& config, const Storage& storage, const std::string& tokenizer_dir,
                     const std::function<std::span<const float>(const TensorSpec&)>& get,
                     std::uint64_t shard_bytes = kShardBytes);

/// Told how many tensors are written, of how many.
using StoreProgress = std::function<void(std::int64_t done, std::int64_t total)>;
/// `get`, which tells `progress` of each tensor whose last rows it gives; `get` itself without progress.
RowSource Reporting(const ModelConfig& config, RowSource get, StoreProgress progress);

/// `temper init`: a random model from an architecture file (a config.json without weights) and a tokenizer folder.
/// Weights: normal(0, initializer_range) from a counter-based generator keyed by (seed, tensor name); norms 1; biases 0. The bits
/// depend on neither threads nor shards. `out` must not exist; it appears whole or not at all.
void InitModel(const std::string& arch_file, const std::string& tokenizer_dir, std::uint64_t seed, const Storage& storage,
               const std::string& out, int threads = 1, std::uint64_t shard_bytes = kShardBytes,
               const StoreProgress& progress = {});

/// `temper convert`: the model of folder `in` stored another way. `out` must not exist; it appears whole or not at all.
/// Stacked experts become a matrix each. BF16 rounds to nearest even; FP32 of blocks is code times scale. `adapter`: a PEFT folder
/// that is merged, in FP32 before it is stored.
void ConvertModel(const std::string& in, const Storage& storage, const std::string& out,
                  std::uint64_t shard_bytes = kShardBytes, const StoreProgress& progress = {},
                  const std::string& adapter = "");

}  // namespace temper::engine
