#pragma once
// When a draft of the MTP layer pays: acceptance against what the extra rows cost on this model.
#include <cstdint>

#include "engine/model_config.h"

namespace temper::engine {

/// Multiply-adds of a token with weights: attention in the absorbed form, router, chosen and shared
/// experts, the head; main layers only.
double WeightsPerToken(const ModelConfig& config);
/// Those of attention's scores and values over so many keys, all main layers.
double AttentionPerToken(const ModelConfig& config, double keys);

/// Decoding is bound by the weights it reads, then by multiply-adds. A step of B rows reads every
/// dense weight once and E (1 - (1 - k/E)^B) of a layer's E experts; drafting doubles the rows,
/// runs the MTP layer and the head again, and gains the accepted share of a token.
class SpeculationRule {
 public:
  /// bytes_per_weight: 1 for FP8, 2 for BF16, 4 for FP32.
  SpeculationRule(const ModelConfig& config, double bytes_per_weight);

  /// Whether to draft for `samples` sequences decoded together.
  bool Pays(int samples) const;
  void Count(int drafted, int accepted);
  /// Smoothed share of accepted drafts, from a prior of 0.7.
  double acceptance() const;
  /// The policy has changed: what was counted fades to the prior.
  void Reset();

 private:
  // In bytes read, or what could have been read meanwhile: the main layers, the MTP layer, any.
  double Cost(double rows) const;
  double DraftCost(double rows) const;
  double Time(double rows, double dense, double moe_layers) const;

  double dense_, expert_, head_, draft_dense_;  // weights
  double moe_layers_, experts_, top_k_, bytes_;
  double drafted_ = 0, accepted_ = 0;
};

}  // namespace temper::engine
