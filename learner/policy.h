#pragma once
// The differentiable policy: the engine's forward, composed of the same kernels on the same packed
// weights, with gradients.
#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/weights.h"
#include "learner/core/pack.h"
#include "learner/device.h"
#include "learner/lora.h"
#include "learner/ops.h"
#include "learner/parameters.h"
#include "learner/published.h"

namespace temper::learner {

class Policy {
 public:
  struct Options {
    int threads = 1;
    bool gradients = true;   // false: a reference policy, without gradients and moments
    bool plain = false;      // learner.forward "libtorch": another numerics id
    bool recompute = false;  // activations of a layer are not kept, Backward runs it again
    engine::Numerics numerics = {};
    configs::Lora lora = {};  // r > 0: adapters are trained, all else is constant
    Shard shard = {};         // whose moments this process has
    std::string device = "cpu";  // or cuda:N: where activations, values and their gradients lie
  };
  Policy(const engine::ModelConfig& config, const Options& options);

  struct Request {
    float temperature = 1.0f;
    bool gradients = true;
    bool entropy = true;          // false: Result::entropy is zeros
    bool mtp = false;             // also the MTP layers' log-probs of the same targets
    TargetForms forms = {};       // of the main model's log-probs
    BalanceWeights balance = {};  // of the main model's routers; kernels' forward only
    double capacity = 0;          // of devices in its MoE layers, see OpContext; 0: all
  };
  struct Result {
    torch::Tensor logp, entropy;  // [R]
    std::int64_t correct = 0;     // targets that are the row's largest logit
    // Of MTP layer d the targets at position >= 2 + d of their sequence; ends before a layer that
    // has none.
    std::vector<torch::Tensor> mtp_logp;
    std::vector<std::int64_t> mtp_correct;  // of them, as `correct`: what a draft would have hit
    std::vector<Routing> routing;           // a MoE layer of the main model
    std::vector<Routing> mtp_routing;
  };
  /// Log-probs of `targets` (row t of the pack gives token t + 1 of its sequence). Bitwise the
  /// engine's. MTP layers: h_t after the final norm (of the MTP layer before after its own), token
  /// t + 1's (t + 2's) embedding -> token t + 2 (t + 3); trunk, embedding and head are constants
  /// there.
  Result Forward(std::shared_ptr<const Pack> pack, const Targets& targets, const Request& request);

  /// Scores of rows of the pack by a scalar head: its product with their hidden state after the
  /// final norm. Bitwise the engine's.
  struct Scores {
    torch::Tensor scores;  // [R]
    std::vector<Routing> routing;
  };
  Scores Score(std::shared_ptr<const Pack> pack, const std::vector<std::int64_t>& rows,
               bool gradients);

  /// Loads the folder of a model `base`. Where this policy is the reward model of a language model,
  /// it takes the trunk and draws its scalar head from N(0, initializer_range^2) by `seed`.
  void Begin(const std::string& model_dir, const engine::ModelConfig& base, std::uint64_t seed);
  /// Masters and weights of a model folder; FP8 blocks that the mode runs stay as they are.
  /// `masters` false: the weights alone (what a checkpoint's actors ran, its masters came from
  /// elsewhere). Throws UserError as engine::ReadCheckpoint.
  void Load(const std::string& model_dir, bool masters = true);
  /// Of a policy with adapters, after Load: those of lora.adapter, or new ones drawn by `seed`.
  void BeginAdapters(std::uint64_t seed);
  /// Rounds and packs the masters again after they changed; merges adapters into them first.
  void Refresh();
  /// The same of some entries, without adapters.
  void Refresh(std::span<const std::size_t> entries);

  /// After a step's backward passes: what they left on a device is added to the parameters'
  /// gradients.
  void CollectGradients();

  Parameters& parameters() { return parameters_; }
  /// Null: the parameters themselves are trained.
  Lora* lora() { return lora_.get(); }
  /// What an optimizer step moves.
  TrainedBuffers trained() { return lora_ ? lora_->buffers() : parameters_.buffers(); }
  const engine::Weights& weights() const { return weights_; }
  /// The weights of the last Load or Refresh as actors get them.
  const Published& published() const { return published_; }
  const engine::ModelConfig& config() const { return weights_.config(); }
  kernels::ThreadPool& pool() { return pool_; }

 private:
  struct LayerLeaves {
    torch::Tensor input_norm, q, q_a, q_a_norm, q_b, kv_a, kv_a_norm, kv_b, o, post_norm;
    torch::Tensor q_a_bias, kv_a_bias, o_bias;  // attention_bias
    torch::Tensor gate_up, down;                // dense
    torch::Tensor router, experts, shared_gate_up, shared_down;
    torch::Tensor enorm, hnorm, head_norm, eh;  // MTP
  };

  /// The values of a tensor, with the gradient of its master; `shape` may reach over the tensors
  /// that follow it in the flat buffer (up behind gate, all experts).
  torch::Tensor Leaf(const std::string& name, std::vector<std::int64_t> shape = {});
  /// Whether an optimizer step moves a weight among `count` floats from `offset` on.
  bool Trains(std::int64_t offset, std::int64_t count) const;
  void MakeLeaves();
  void Take(std::size_t entry, const engine::TensorData& data, bool masters);
  /// Before a forward on a device: takes values that have changed.
  void Upload();
  OpContext Context(std::shared_ptr<const Pack> pack, const Request& request);
  /// The main model up to its final norm.
  torch::Tensor Hidden(const OpContext& context, std::vector<Routing>* routing);
  void MakeMoeLeaves(LayerLeaves& leaves, const std::string& prefix);
  void GrowRopeTable(const Pack& pack);

  /// Also records the routing of a MoE layer, where `routing` is not null.
  torch::Tensor RunLayer(int index, const torch::Tensor& input, const OpContext& context,
                         std::vector<Routing>* routing);
  /// The same, with the activations kept or not.
  torch::Tensor Layer(int index, const torch::Tensor& x, const OpContext& context,
                      std::vector<Routing>* routing);
  torch::Tensor RmsNorm(const OpContext& context, const torch::Tensor& x, const torch::Tensor& leaf,
                        const std::vector<float>& weight, float eps);
  torch::Tensor Linear(const OpContext& context, const torch::Tensor& x, const torch::Tensor& leaf,
                       const engine::PackedLinear& weight, const torch::Tensor& residual = {});
  void Mtp(const OpContext& main, const Targets& targets, torch::Tensor hidden,
           const Request& request, Result* result);

  Options options_;
  Parameters parameters_;
  std::unique_ptr<Lora> lora_;
  engine::Weights weights_;
  Published published_;
  kernels::ThreadPool pool_;
  std::unique_ptr<Device> device_;  // null: the CPU
  // On a device: copies of published_'s values, and gradients by them. Undefined on the CPU.
  torch::Tensor values_, gradients_;
  bool changed_ = true;  // published_, since values_ were taken
  torch::Tensor embedding_, norm_, head_;
  std::vector<LayerLeaves> leaves_;
  std::vector<float> rope_table_;
  int rope_positions_ = 0;
};

}  // namespace temper::learner
