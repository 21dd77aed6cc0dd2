#pragma once
// What a model thinks of given tokens: its likeliest ids at every place, for distillation.
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/forward.h"
#include "engine/weights.h"

namespace temper::engine {

/// The largest log-probs of one place, descending; of equal ones the lower id first.
struct TopIds {
  std::vector<std::int32_t> ids;
  std::vector<float> logp;  // log-softmax(logits / temperature) over the whole vocabulary
};

class Teacher {
 public:
  Teacher(std::shared_ptr<const Weights> weights, int threads);
  /// The `k` likeliest ids for each of the tokens [from, ids.size()), given those before it; 1 <= from. Throws UserError for ids past
  /// the vocabulary or more tokens than the model has positions.
  std::vector<TopIds> Judge(std::span<const std::int32_t> ids, int from, int k, float temperature);

 private:
  std::shared_ptr<const Weights> weights_;
  kernels::ThreadPool pool_;
  Forward forward_;
};

}  // namespace temper::engine
