#pragma once
// Row loops of the backward pass whose formula is cheaper than autograd through the plain op. No
// LibTorch.
#include <cstdint>
#include <functional>

#include "kernels/thread_pool.h"

namespace temper::learner {

/// Runs fn(begin, end) over [0, rows) in parts of `grain` rows. The partition is a function of rows
/// and grain alone.
void ForRows(kernels::ThreadPool& pool, std::int64_t rows, std::int64_t grain,
             const std::function<void(std::int64_t, std::int64_t)>& fn);

/// y = x s w with s = 1 / sqrt(mean(x^2) + eps): dx = s (g w) - x s^3 / d sum(g w x), dw = sum over
/// rows of g x s.
///   x, g, dx  [m, d] with row strides; weight [d]; dw [d], overwritten, may be null
void RmsNormGradient(const float* x, std::int64_t ldx, const float* weight, float eps,
                     const float* g, std::int64_t ldg, std::int64_t m, int d, float* dx,
                     std::int64_t lddx, float* dw, kernels::ThreadPool& pool);

/// y = g s u, s = sigmoid(g): dgate = dy u (s + g s (1 - s)), dup = dy g s.
///   gate_up, d_gate_up [m, 2 d] gate first; sigmoid, dy [m, d]; contiguous
void SwiGluGradient(const float* gate_up, const float* sigmoid, const float* dy, std::int64_t m,
                    int d, float* d_gate_up, kernels::ThreadPool& pool);

/// Rotates adjacent pairs back by the table's angles (the transpose of kernels::Rope), in place;
/// the amplitude multiplies again.
void RopeTransposed(float* x, std::int64_t ldx, int heads, std::int64_t ldh, int dim,
                    const std::int32_t* position, std::int64_t m, const float* table,
                    kernels::ThreadPool& pool);

/// sum over i of a[i] b[i], 16 strided lanes.
float Dot(const float* a, const float* b, std::int64_t n);

/// Whether row[i] is the largest of n values, and the first of its size.
bool IsFirstLargest(const float* row, int n, int i);

/// y += a x.
void Axpy(float a, const float* x, std::int64_t n, float* y);

}  // namespace temper::learner
