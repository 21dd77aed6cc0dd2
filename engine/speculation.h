#pragma once
// How many drafts of the MTP layers pay: acceptance against what the extra rows cost on this model.
#include <cstdint>
#include <vector>

#include "engine/model_config.h"

namespace temper::engine {

/// Multiply-adds of a token with weights: attention in the absorbed form, router, chosen and shared
/// experts, the head; main layers only.
double WeightsPerToken(const ModelConfig& config);
/// Those of attention's scores and values over so many keys, all main layers.
double AttentionPerToken(const ModelConfig& config, double keys);

/// Decoding is bound by the weights it reads, then by multiply-adds. A step of B rows reads every
/// dense weight once and E (1 - (1 - k/E)^B) of a layer's E experts; each draft adds a row a sample
/// and another run of the head, all MTP layers run beside it, and the drafts gain what is accepted
/// of them, a deeper one only after those before it.
class SpeculationRule {
 public:
  /// bytes_per_weight: 1 for FP8, 2 for BF16, 4 for FP32.
  SpeculationRule(const ModelConfig& config, double bytes_per_weight);

  /// How many drafts to make for each of `samples` sequences decoded together: 0 to the MTP layers.
  int Drafts(int samples) const;
  /// Drafts number depth + 1 of which the ones before had held.
  void Count(int drafted, int accepted, int depth = 0);
  /// Smoothed share of those that hold, from a prior of 0.7.
  double acceptance(int depth = 0) const;
  /// The policy has changed: what was counted fades to the prior.
  void Reset();

 private:
  // In bytes read, or what could have been read meanwhile: the main layers, the MTP layer, any.
  double Cost(double rows) const;
  double DraftCost(double rows) const;
  double Time(double rows, double dense, double moe_layers) const;

  double dense_, expert_, head_, draft_dense_;  // weights
  double moe_layers_, experts_, top_k_, bytes_;
  struct Counts {
    double drafted = 0, accepted = 0;
  };
  std::vector<Counts> counts_;  // by depth
};

}  // namespace temper::engine
