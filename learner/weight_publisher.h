#pragma once
// A policy's weights as the set that is served to actors: copied, hashed, with their canary.
#include <memory>

#include "learner/core/service.h"
#include "learner/policy.h"

namespace temper::learner {

class WeightPublisher {
 public:
  /// The policy's published bytes as `version`. `tokens` of the tokenizer are in the canary.
  std::shared_ptr<const WeightSet> Next(Policy& policy, std::uint32_t version, int tokens);
  /// Share of the last set's bytes that the one before did not have; 1 of the first.
  double changed() const { return changed_; }

 private:
  std::shared_ptr<WeightSet> served_, spare_;
  double changed_ = 1;
};

}  // namespace temper::learner
