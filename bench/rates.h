#pragma once
// Timing and the limits of the machine, measured in the same run as everything else.
#include <functional>
#include <vector>

#include "kernels/thread_pool.h"

namespace temper::bench {

/// Seconds of the clock, or with one thread its own processor time, which other programs' load
/// doesn't lengthen.
double Now(int threads);

/// The least time of one call over 0.15 s of calls.
double Seconds(const std::function<void()>& body, int threads);

/// One call.
double Once(const std::function<void()>& body, int threads);

double Median(std::vector<double> x);

/// GFLOP/s of multiply-adds on every thread of the pool, in the active variant's width (scalar:
/// AVX2).
double FmaRate(kernels::ThreadPool& pool);

/// GB/s at which the pool reads memory that no cache holds: 512 MiB on huge pages, in parts of
/// 1 MiB.
double ReadRate(kernels::ThreadPool& pool);

/// Numbers in [-0.5, 0.5).
std::vector<float> Floats(std::size_t n);

}  // namespace temper::bench
