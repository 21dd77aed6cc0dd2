#pragma once
// A device beside the CPU: where the policy's tensors lie and whose kernels compute its forward.
#include <memory>
#include <string>
#include <vector>

#include "engine/weights.h"
#include "learner/autograd.h"

namespace temper::learner {

/// The kernels' forward on tensors of a device, bitwise that of the engine there. Matrices are
/// named by those of the engine::Weights that it was made for. Tensors are FP32 and contiguous;
/// nothing here is seen by autograd: gradients go through the plain forms, which LibTorch computes
/// on the device.
class Device {
 public:
  virtual ~Device() = default;
  virtual torch::Device place() const = 0;
  /// Takes all weights again. They were rounded since.
  virtual void Update() = 0;

  /// x [m, d], weight [d].
  virtual torch::Tensor RmsNorm(const torch::Tensor& x, const torch::Tensor& weight,
                                float eps) const = 0;
  /// x [m, K] -> [m, N]; x is quantised first where the mode and w say so.
  virtual torch::Tensor Linear(const engine::PackedLinear& w, const torch::Tensor& x) const = 0;
  /// residual + out, out rounded first as the mode says.
  virtual torch::Tensor AddBlock(const torch::Tensor& out, const torch::Tensor& residual) const = 0;
  /// The gated MLP on x [m, H].
  virtual torch::Tensor Mlp(const engine::MlpWeights& w, const torch::Tensor& x) const = 0;
  /// AttentionOp's forward: q [T, heads (P + R)], kv [T, L + R], kv_a_norm [L] -> [T, heads V].
  /// `rows` becomes [T, L + R], kv normed and rotated, as the cache was given it.
  virtual torch::Tensor Attention(const OpContext& context, const engine::LayerWeights& w,
                                  const torch::Tensor& q, const torch::Tensor& kv,
                                  const torch::Tensor& kv_a_norm, torch::Tensor* rows) const = 0;
  /// x [m, H] -> [m, E].
  virtual torch::Tensor RouterLogits(const engine::LayerWeights& w,
                                     const torch::Tensor& x) const = 0;
  /// The experts of each row of logits [m, E] and their weights, both [m, k] and of that size
  /// already. `forced` [m, k] or empty.
  virtual void Route(const engine::LayerWeights& w, const torch::Tensor& logits,
                     const std::vector<std::int32_t>& forced, std::vector<std::int32_t>* ids,
                     std::vector<float>* weights) const = 0;
  /// Each expert's gated MLP on its rows [begin[e], begin[e + 1]) of x [P, H]; rows behind are
  /// zeros.
  virtual torch::Tensor Experts(const engine::LayerWeights& w, const torch::Tensor& x,
                                const std::vector<std::int64_t>& begin) const = 0;
  /// Row t of the result is the sum over j of weights[t, j] out[slot[t, j]], and shared's row t
  /// where that is defined.
  virtual torch::Tensor Combine(const torch::Tensor& out, const std::vector<std::int32_t>& slot,
                                const std::vector<float>& weights,
                                const torch::Tensor& shared) const = 0;
  struct LogProbs {
    torch::Tensor lse, logp, entropy;  // [m]
  };
  virtual LogProbs LogSoftmax(const torch::Tensor& logits, const std::vector<std::int32_t>& targets,
                              float temperature) const = 0;
};

/// "cpu": null. Throws UserError for a name that is neither that nor cuda:N, MachineError for a
/// device that this build or this machine lacks. `weights` outlives it.
std::unique_ptr<Device> MakeDevice(const std::string& name, const engine::Weights& weights);

/// learner/cuda has it in builds with TEMPER_CUDA; in others it throws (learner/no_cuda.cc).
std::unique_ptr<Device> MakeCudaDevice(int number, const engine::Weights& weights);

}  // namespace temper::learner
