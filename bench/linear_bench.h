#pragma once
// Linear layers beside the read rate and the multiply-add rate of the same round.
#include "kernels/thread_pool.h"

namespace temper::bench {

/// Prints a line for each type, shape and number of rows: medians of seven rounds.
void BenchTypes(kernels::ThreadPool& pool);

}  // namespace temper::bench
