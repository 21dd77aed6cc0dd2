#pragma once
// A target that is no single id: a distribution, as far as it is known.
#include <cstdint>
#include <vector>

namespace temper::learner {

/// Its log-prob is sum(weight log p(id)). Empty: the target is an id.
struct WeightedIds {
  std::vector<std::int32_t> ids;
  std::vector<float> weights;
};

}  // namespace temper::learner
