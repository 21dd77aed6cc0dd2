#pragma once
// The one autograd function: forward by the kernels, backward by LibTorch through the plain form of
// the same operation.
#include <torch/torch.h>

#include <functional>
#include <memory>
#include <vector>

#include "engine/model_config.h"
#include "engine/numerics.h"
#include "kernels/thread_pool.h"
#include "learner/core/balance.h"
#include "learner/core/pack.h"

namespace temper::learner {

using Tensors = std::vector<torch::Tensor>;

class Device;

/// What operations of one forward share. Everything outlives the graph.
struct OpContext {
  const engine::ModelConfig* config = nullptr;
  kernels::ThreadPool* pool = nullptr;
  const Device* device = nullptr;     // where tensors lie and the forward runs; null: the CPU
  const float* rope_table = nullptr;  // [max length of the pack][qk_rope_dim]
  std::shared_ptr<const Pack> pack;
  engine::Numerics numerics;
  bool recompute = false;  // what Backward can compute again is not kept
  BalanceWeights balance;  // of MoE layers; their loss reaches the router in Backward
  double capacity = 0;     // of a device, times its even share of a MoE layer's pairs; 0: all
};

/// One operation of the policy on FP32 tensors of one device. All inputs are contiguous, but
/// weights may be strided views.
class Op : public torch::CustomClassHolder {
 public:
  /// By the kernels, on the packed weights that the op was made with (`in` holds the same values).
  /// May keep intermediates for Backward. No autograd inside.
  virtual Tensors Forward(const Tensors& in) = 0;

  /// The same function in LibTorch operations: the definition of the gradient, and
  /// `learner.forward: "libtorch"`. Routing decisions are those of Forward where it has run.
  virtual Tensors Plain(const Tensors& in) = 0;

  /// Gradients of the inputs that `needs` names (others may be undefined), given those of the
  /// outputs (undefined: zero). Default: LibTorch's autograd through Plain on the saved inputs.
  /// Overridden where an explicit formula is much cheaper, on the CPU.
  virtual Tensors Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs);

  std::vector<bool> present;  // which inputs are defined; set by Apply
};

/// Integers as an index where `like` lies.
template <typename T>
torch::Tensor IndexFor(const torch::Tensor& like, const std::vector<T>& values) {
  return torch::tensor(std::vector<std::int64_t>(values.begin(), values.end())).to(like.device());
}

/// Applies op to `in`. `plain`: LibTorch computes the forward too.
Tensors Apply(c10::intrusive_ptr<Op> op, const Tensors& in, bool plain);

/// run(x, true), whose activations are not kept: Backward calls run(x, false), of the same bits,
/// and goes back through that. Gradients of leaves that `run` reads are added to theirs.
torch::Tensor ApplyAgain(std::function<torch::Tensor(const torch::Tensor& x, bool first)> run,
                         const torch::Tensor& x);

}  // namespace temper::learner
