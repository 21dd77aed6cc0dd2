#include "learner/core/capacity.h"

#include <algorithm>
#include <cmath>

namespace temper::learner {

std::vector<char> PastCapacity(double capacity, const kernels::RouterShape& shape, const Pack& pack,
                               const std::int32_t* ids, const float* logits) {
  const std::size_t tokens = std::size_t(pack.tokens()), k = std::size_t(shape.top_k),
                    experts = std::size_t(shape.experts);
  const int each = shape.experts / shape.groups;
  const double room = std::floor(capacity * double(tokens * k) / shape.groups);
  struct Pair {
    float score;
    std::size_t at;
  };
  std::vector<std::vector<Pair>> devices(std::size_t(shape.groups));
  std::vector<double> left(std::size_t(shape.groups), room);
  std::vector<float> scores(experts);
  for (std::size_t t = 0; t < tokens; ++t) {
    kernels::RouterScores(shape.method, logits + t * experts, shape.experts, scores.data());
    const bool exempt =
        !pack.exempt.empty() && pack.exempt[std::size_t(pack.SequenceOf(std::int32_t(t)))];
    for (std::size_t at = t * k; at < (t + 1) * k; ++at) {
      const std::size_t device = std::size_t(ids[at] / each);
      if (exempt) {
        --left[device];
      } else {
        devices[device].push_back({scores[std::size_t(ids[at])], at});
      }
    }
  }
  std::vector<char> dropped(tokens * k, 0);
  for (std::size_t d = 0; d < devices.size(); ++d) {
    std::vector<Pair>& pairs = devices[d];
    std::stable_sort(pairs.begin(), pairs.end(),
                     [](const Pair& a, const Pair& b) { return a.score > b.score; });
    for (std::size_t i = std::size_t(std::max(0.0, left[d])); i < pairs.size(); ++i)
      dropped[pairs[i].at] = 1;
  }
  return dropped;
}

}  // namespace temper::learner
