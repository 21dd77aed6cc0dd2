#pragma once
// The loss of the multi-token-prediction layers: the mean over the layers of each one's mean -log
// p.
#include "learner/communicator.h"
#include "learner/policy.h"

namespace temper::learner {

/// Source DeepSeek-V3 (arXiv 2412.19437) 2.2, eq. 25: scale / layers * sum of the layers' losses.
/// The denominators are those of a step: Count sees all its micro-batches before Add sees one.
class MtpLoss {
 public:
  MtpLoss(const engine::ModelConfig& config, double scale);

  void Count(const Pack& pack, const Targets& targets);
  /// Adds the log-probs of a result and their gradients to what autograd::backward takes, and their
  /// part of the loss to mean().
  void Add(const Policy::Result& result, Tensors* from, Tensors* gradient);

  /// Where several ranks have seen Count of all micro-batches, and each Add of its own: those of
  /// all.
  void Sum(Communicator& ranks);

  /// Whether there is a layer to train and a scale to train it with.
  bool wanted() const { return scale_ > 0 && !tokens_.empty(); }
  /// Of what was added, without the scale.
  double mean() const { return mean_; }
  /// Of each layer the share of its targets with its largest logit: of sampled tokens those that
  /// its draft would have hit, which is what speculation accepts.
  std::vector<double> acceptance() const;

 private:
  double scale_;
  std::vector<std::int64_t> tokens_;   // a layer's targets
  std::vector<std::int64_t> correct_;  // of those added
  double mean_ = 0;
};

/// mtp/acceptance, of later layers mtp/acceptance/depth_N.
void AddAcceptance(const std::vector<double>& acceptance, Json* metrics);

}  // namespace temper::learner
