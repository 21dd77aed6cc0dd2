#pragma once
// The policy's operations: what each takes and gives. Weights [N, K] are the values that the mode
// rounded; the kernels read the same from engine::Weights.
#include <vector>

#include "engine/weights.h"
#include "kernels/sampling.h"
#include "learner/autograd.h"
#include "learner/block.h"
#include "learner/core/soft_target.h"

namespace temper::learner {

/// in {table [V, H]} -> x [T, H], row t of `ids`.
class EmbedOp : public Op {
 public:
  EmbedOp(OpContext context, const engine::Weights* weights, std::vector<std::int32_t> ids)
      : context_(context), weights_(weights), ids_(std::move(ids)) {}
  Tensors Forward(const Tensors& in) override;
  Tensors Plain(const Tensors& in) override;
  Tensors Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) override;

 private:
  OpContext context_;
  const engine::Weights* weights_;
  std::vector<std::int32_t> ids_;
};

/// in {x [m, d], weight [d]} -> [m, d].
class RmsNormOp : public Op {
 public:
  RmsNormOp(OpContext context, const std::vector<float>* weight, float eps)
      : context_(context), weight_(weight), eps_(eps) {}
  Tensors Forward(const Tensors& in) override;
  Tensors Plain(const Tensors& in) override;
  Tensors Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) override;

 private:
  OpContext context_;
  const std::vector<float>* weight_;
  float eps_;
};

/// in {x [m, K], w [N, K], residual [m, N] or undefined} -> x w^T, or residual + round(x w^T).
class LinearOp : public Op {
 public:
  LinearOp(OpContext context, const engine::PackedLinear* w) : context_(context), w_(w) {}
  Tensors Forward(const Tensors& in) override;
  Tensors Plain(const Tensors& in) override;
  Tensors Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) override;

 private:
  OpContext context_;
  const engine::PackedLinear* w_;
};

/// The gated MLP: in {h [m, H], gate_up [2I, H], down [H, I], residual [m, H]} -> residual +
/// round(down(silu(gate) up)).
class MlpOp : public Op {
 public:
  MlpOp(OpContext context, const engine::MlpWeights* w) : context_(context), w_(w) {}
  Tensors Forward(const Tensors& in) override;
  Tensors Plain(const Tensors& in) override;
  Tensors Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) override;

 private:
  OpContext context_;
  const engine::MlpWeights* w_;
  GatedMlp run_;  // of Forward
};

/// Latent attention between its projections, absorbed in Forward, naive in Plain and Backward. The
/// context's pack says who sees whom. in {q [T, heads (P + R)] not rotated, kv [T, L + R] not
/// normed or rotated, kv_a_norm [L], kv_b [heads (P + V), L]}
/// -> [T, heads V].
class AttentionOp : public Op {
 public:
  AttentionOp(OpContext context, const engine::LayerWeights* w) : context_(context), w_(w) {}
  Tensors Forward(const Tensors& in) override;
  Tensors Plain(const Tensors& in) override;
  Tensors Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) override;

 private:
  OpContext context_;
  const engine::LayerWeights* w_;
  torch::Tensor rotated_q_,
      latent_;  // of Forward: [T, heads, P + R]; [T, L + R] normed, rotated, rounded as the cache
};

/// What a MoE layer chose, kept for metrics, probes and the loss-free bias.
struct Routing {
  std::vector<std::int32_t> ids;    // [T, k] ascending
  std::vector<std::int64_t> loads;  // [E] token count
  double balance_loss = 0;          // OpContext::balance's, of this layer
  std::int64_t dropped = 0;         // pairs of token and expert that were not computed
};

/// in {h [T, H], residual [T, H], router [E, H], experts [E, 3 I H] (gate and up [2I, H], then down
/// [H, I]), shared gate_up [2S, H], shared down [H, S] (both undefined without a shared expert)} ->
/// residual + round(routed + shared). The chosen ids are constants, of the router or of the pack
/// (`layer` counts MoE layers there); the gradient flows through the gates, their normalisation and
/// scale. Pairs past a device's capacity give nothing and are not computed.
class MoeOp : public Op {
 public:
  MoeOp(OpContext context, const engine::LayerWeights* w, int layer)
      : context_(context), w_(w), layer_(layer) {}
  Tensors Forward(const Tensors& in) override;
  Tensors Plain(const Tensors& in) override;
  Tensors Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) override;
  const Routing& routing() const { return routing_; }

 private:
  Tensors DeviceForward(const Tensors& in);
  Tensors DeviceBackward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs);
  void Choose(const torch::Tensor& logits);
  /// The experts that the pack says, [m, k]; empty where it says none.
  std::vector<std::int32_t> Replayed(int m) const;
  /// Sets the weight of pairs past a device's capacity to 0 and their slot behind all experts'.
  void Sort();
  void Gather(const float* x);
  /// Zeros in the rows of dropped pairs.
  void ClearDropped(torch::Tensor* rows) const;
  /// The experts' matrices on rows sorted by expert.
  void RunExperts(engine::PackedLinear engine::MlpWeights::*member, const torch::Tensor& from,
                  float* to, std::int64_t ldo) const;
  torch::Tensor ExpertsBackward(const torch::Tensor& experts, const torch::Tensor& d_out,
                                torch::Tensor* d_experts) const;
  void GateGradient(const std::vector<float>& d_weight, float* d_logits) const;

  OpContext context_;
  const engine::LayerWeights* w_;
  int layer_;
  Routing routing_;
  std::vector<float> weight_;         // [T, k]; 0 of dropped pairs
  std::vector<char> dropped_;         // [T, k]; empty: none
  std::vector<std::int32_t> slot_;    // [T, k] row among the sorted pairs, dropped ones last
  std::vector<std::int32_t> source_;  // [T k] token of a sorted pair
  std::vector<std::int64_t> begin_;   // [E + 1] first pair of each expert
  torch::Tensor logits_;              // on the CPU, where it is needed
  torch::Tensor gathered_, gate_up_, gated_, expert_out_;
  GatedMlp shared_;
};

/// What a target's log-prob is where it is not that of one id among all.
struct TargetForms {
  /// [R] the ids that sampling chose from, ascending: the log-prob is of the distribution over
  /// them. Null: all.
  std::shared_ptr<const std::vector<std::vector<std::int32_t>>> kept = nullptr;
  /// [R] a teacher's. Null: all are empty.
  std::shared_ptr<const std::vector<WeightedIds>> soft = nullptr;
};

/// Log-probs of targets: in {hidden [T, H] after the final norm, head [V, H]} -> {logp [R], entropy
/// [R]} of log-softmax(head hidden[row] / temperature); entropy is that of the whole vocabulary.
class HeadOp : public Op {
 public:
  HeadOp(OpContext context, const engine::PackedLinear* head, Targets targets, float temperature,
         bool entropy, TargetForms forms = {})
      : context_(context),
        head_(head),
        targets_(std::move(targets)),
        temperature_(temperature),
        want_entropy_(entropy),
        forms_(std::move(forms)) {}
  Tensors Forward(const Tensors& in) override;
  Tensors Plain(const Tensors& in) override;
  Tensors Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) override;
  /// Rows whose target has the largest logit (lowest id on ties): mean_token_accuracy.
  std::int64_t correct() const { return correct_; }

 private:
  Tensors DeviceForward(const Tensors& in);
  /// A chunk at a time: no device holds the logits of all.
  Tensors DeviceBackward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs);
  HeadOp Part(std::int64_t first, std::int64_t rows) const;
  /// The forms' log-probs of a chunk.
  void Reform(const float* logits, std::int64_t first, std::int64_t rows, float* logp) const;
  /// d loss / d logits of a chunk, in place.
  void ChunkGradient(torch::Tensor& logits, std::int64_t first, const torch::Tensor& g,
                     const torch::Tensor& ge);

  OpContext context_;
  const engine::PackedLinear* head_;
  Targets targets_;
  float temperature_;
  bool want_entropy_;  // false: zeros without a gradient
  TargetForms forms_;
  std::int64_t correct_ = 0;
  torch::Tensor rows_, lse_, entropy_;
  Tensors logits_;  // a chunk each; empty where they would not fit and Backward computes them again
};

}  // namespace temper::learner
