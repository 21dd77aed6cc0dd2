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
///   gate_up, d_gate_up [m, 2 d] gate first; dy [m, d]; contiguous
void SwiGluGradient(const float* gate_up, const float* dy, std::int64_t m, int d, float* d_gate_up,
                    kernels::ThreadPool& pool);

/// Of log-softmax(logits / temperature) at the target and of its entropy, in place: logits becomes
/// d loss / d logits.
///   logits [m, n]; target, lse, g [m]; ge, entropy [m], null where no gradient flows through the
///   entropy
void LogProbGradient(float* logits, std::int64_t m, int n, float temperature,
                     const std::int32_t* target, const float* lse, const float* g, const float* ge,
                     const float* entropy, kernels::ThreadPool& pool);

/// Of kernels::CombineExperts by the experts' outputs and weights: d_out[slot] = weight dy,
/// d_weight = <out[slot], dy>.
///   out, d_out [m k, h]; slot, weight, d_weight [m, k]; dy [m, h]; contiguous
void CombineGradient(const float* out, const float* dy, const std::int32_t* slot,
                     const float* weight, std::int64_t m, int k, int h, float* d_out,
                     float* d_weight, kernels::ThreadPool& pool);

/// dx[t] += the rows of its slots, ascending, then `more`[t] unless null.
///   d_gathered [m k, h]; dx, more [m, h]; contiguous
void AddSlots(const float* d_gathered, const std::int32_t* slot, const float* more, std::int64_t m,
              int k, int h, float* dx, kernels::ThreadPool& pool);

/// Rotates adjacent pairs back by the table's angles (the transpose of kernels::Rope), in place;
/// the amplitude multiplies again.
void RopeTransposed(float* x, std::int64_t ldx, int heads, std::int64_t ldh, int dim,
                    const std::int32_t* position, std::int64_t m, const float* table,
                    kernels::ThreadPool& pool);

/// to[t] = the sum of x [m][heads][d] over its heads, ascending.
void SumHeads(const float* x, std::int64_t m, int heads, int d, float* to, std::int64_t ldt,
              kernels::ThreadPool& pool);

/// sum over i of a[i] b[i], 16 strided lanes.
float Dot(const float* a, const float* b, std::int64_t n);

/// Whether row[i] is the largest of n values, and the first of its size.
bool IsFirstLargest(const float* row, int n, int i);

/// y += a x.
void Axpy(float a, const float* x, std::int64_t n, float* y);

}  // namespace temper::learner
