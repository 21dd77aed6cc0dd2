#pragma once
// A number that the weights in place give: equal weights and equal arithmetic, equal number.
#include <cstdint>

#include "engine/weights.h"
#include "kernels/thread_pool.h"

namespace temper::engine {

/// CRC-32C of the bits of all logits that a fixed prompt of eight tokens below `valid_ids` (0 = the
/// vocabulary) gives. A function of weights and numerics id alone: never of threads or machine.
std::uint32_t Canary(const Weights& weights, int valid_ids, kernels::ThreadPool& pool);

}  // namespace temper::engine
