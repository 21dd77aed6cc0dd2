#pragma once
// The model's forward pass on a device: engine/forward.h's steps as launches on one stream.
#include <cstdint>

#include "engine/cuda/experts.h"
#include "engine/cuda/linear.h"
#include "engine/cuda/memory.h"
#include "engine/cuda/weights.h"

namespace temper::engine::cuda {

/// Where the rows of a step lie on the device; addresses stay the same from step to step.
struct DeviceRows {
  std::int32_t *ids, *positions, *count,
      *table;                 // [m]; table: the row of `pages` with its keys' places
  std::int64_t* place;        // [m] where its own latent rows go, in tokens
  const std::int32_t* pages;  // [..][ld] places by position
  std::int64_t ld_pages;
  std::byte* cache;  // [places][layers] of cache rows
};

/// Whether attention runs on tensor cores. Throws MachineError where it must and the device lacks
/// the shared memory: another kernel in its place would be another arithmetic.
bool AttendsOnTensorCores(const ModelConfig& config, const Numerics& numerics,
                          const Device& device);

/// Nothing here waits, allocates or asks the device: a pass may be captured into a graph. The
/// shapes of the experts are what the router's offsets on the device say.
class DeviceForward {
 public:
  /// `others` have the experts that `weights` lacks; null where it lacks none.
  DeviceForward(const Weights& host, const DeviceWeights& weights, const Device& device,
                ExpertDevices* others);

  /// Scratch memory for steps of up to `rows` rows and `heads` rows of logits, at other addresses
  /// where there was less. Throws MachineError.
  void Reserve(int rows, int heads);
  /// A table for positions [0, positions). True where something was copied.
  void ReservePositions(int positions);

  /// Rows through the model, of which none sees more than 256 `splits` keys (kernels::cuda::
  /// MlaAttentionTensor; 0: as many as it likes).
  void Hidden(const DeviceRows& rows, int m, int splits);
  /// Logits of rows picked[i] of the last Hidden.
  void Logits(const std::int32_t* picked, int count);

  float* logits() const { return s_.logits; }
  /// [m, top_k] of the last Hidden's MoE layer.
  const std::int32_t* experts(int moe_layer) const { return s_.experts + moe_layer * expert_step_; }
  std::int64_t token_bytes() const { return token_bytes_; }
  int SplitsFor(int rows, int keys) const;

 private:
  /// One step's intermediate results.
  struct Scratch {
    float *x, *normed, *q, *low, *kv, *absorbed, *latent, *values, *block, *gate_up, *gated,
        *router, *weight, *gathered, *expert_out, *shared, *picked, *logits, *splits, *scales;
    std::byte* inputs;  // a linear layer's, quantised or split in two
    std::int32_t *experts, *offset, *slot, *source;
  };
  void Lay(int rows, int heads);
  LinearInput Prepare(const DeviceLinear& w, const float* x, std::int64_t ldx, int m);
  void Run(const DeviceLinear& w, const LinearInput& in, int m, float* y, std::int64_t ldy);
  void Linear(const DeviceLinear& w, const float* x, std::int64_t ldx, int m, float* y,
              std::int64_t ldy);
  /// Head n of x [m][heads][K] at x + n x_step gives y + n y_step.
  void Heads(const DeviceLinear& w, const float* x, std::int64_t x_step, int m, float* y,
             std::int64_t y_step, std::int64_t ldy);
  void Norm(const float* x, std::int64_t ldx, const float* weight, float eps, int m, int d,
            float* y, std::int64_t ldy);
  void Bias(const float* bias, int n, int m, float* y);
  void Queries(const DeviceLayer& w, const DeviceRows& rows, int m);
  void Attention(const DeviceLayer& w, int layer, const DeviceRows& rows, int m, int splits);
  void Mlp(const DeviceMlp& w, const float* in, const std::int32_t* offset, int m, float* out);
  void Moe(int layer, int m);
  void AddBlock(int m);

  const Weights& host_;
  const ModelConfig& c_;
  const Numerics numerics_;
  const DeviceWeights& weights_;
  const Device& device_;
  ExpertDevices* const others_;
  const bool tensor_attention_;
  const std::int64_t token_bytes_;
  Arena arena_;
  Scratch s_{};
  int rows_ = 0, heads_ = 0;
  std::int64_t expert_step_ = 0, split_room_ = 0;
  std::shared_ptr<std::byte> rope_;
  int positions_ = 0;
};

}  // namespace temper::engine::cuda
