#pragma once
// Which pairs of token and expert a device has no room for (token dropping in supervised training).
#include <cstdint>
#include <vector>

#include "kernels/router.h"
#include "learner/core/pack.h"

namespace temper::learner {

/// A group of experts is a device. Each takes capacity * T k / D pairs of the pack's T tokens; of
/// more than that, those with the lowest scores (on ties the later ones) are dropped. Pairs of the
/// pack's exempt sequences take their room first and are never dropped.
///   ids [T, k] chosen, logits [T, E] of the router -> [T, k], 1: dropped
/// Source DeepSeek-V2 (arXiv 2405.04434) 2.2.3 "Token-Dropping Strategy".
std::vector<char> PastCapacity(double capacity, const kernels::RouterShape& shape, const Pack& pack,
                               const std::int32_t* ids, const float* logits);

}  // namespace temper::learner
