#pragma once
// One optimizer step of a policy: clipping, AdamW, the loss-free router bias, packing the new
// weights.
#include <cstdint>
#include <vector>

#include "configs/config.h"
#include "learner/communicator.h"
#include "learner/policy.h"

namespace temper::learner {

/// Tokens an expert, a MoE layer (main layers first, then MTP layers), summed over the
/// micro-batches of a step.
class ExpertLoads {
 public:
  /// The first `repeated` tokens of the pack are a trunk that a pack before it counted.
  void Add(const Pack& pack, const std::vector<Routing>& main, const std::vector<Routing>& mtp = {},
           int repeated = 0);
  /// Those of all ranks, each of which has added its own micro-batches.
  void Sum(Communicator& ranks);
  const std::vector<std::vector<std::int64_t>>& layers() const { return layers_; }

  /// With max_vio = max_e(load_e) * E / sum(load) - 1 (arXiv 2408.15664, sec. 4.1), of main layers:
  /// moe/max_vio_batch/layer_N of the step's tokens, moe/max_vio_batch the largest of them, and
  /// moe/max_vio_seq, the largest over the layers of the mean over sequences of a sequence's own.
  /// Empty without MoE layers.
  Json Metrics(const engine::ModelConfig& config) const;

 private:
  std::vector<std::vector<std::int64_t>> layers_;
  std::vector<int> numbers_;      // of the main model's MoE layers
  std::vector<double> sequence_;  // a main layer's sum over sequences
  std::int64_t sequences_ = 0;
};

struct UpdateReport {
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  bool applied = true;  // false: loss or norm is not finite, so nothing moved
};

/// Counts updates in a row that moved nothing.
class SkippedSteps {
 public:
  explicit SkippedSteps(const char* job) : job_(job) {}
  /// Says on stderr that `step` was skipped. Throws UserError at the kMost-th in a row: then the
  /// weights will not come back by themselves.
  void Note(const UpdateReport& report, std::int64_t step);
  static constexpr int kMost = 10;

 private:
  const char* job_;
  int in_a_row_ = 0;
};

/// Where `loss` is not finite, nothing moves. Else clips, takes AdamW's step `step` (from 1), then
/// adds speed * sign(mean load - load_e) to the routers' bias (DeepSeek-V3, arXiv
/// 2412.19437, 2.1.2; layers without tokens keep theirs), packs the weights and zeroes the
/// gradients. With `ranks` the gradients are each rank's own part, loads and loss already the
/// step's; each takes the optimizer's step for its shard and all end with the same weights.
UpdateReport Update(Policy& policy, const configs::Optimizer& config, std::int64_t step,
                    const ExpertLoads& loads, double loss, Communicator* ranks = nullptr);

}  // namespace temper::learner
