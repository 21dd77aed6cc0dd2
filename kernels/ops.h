#pragma once
// Row operations of a block in the canonical order: norm, rotary embedding, gated activation,
// expert combination.
#include <cstdint>

#include "kernels/thread_pool.h"

namespace temper::kernels {

/// y[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + eps) * weight. In place allowed (y == x).
/// Order  sum of squares in 16 strided lanes (lane i sums elements i, i+16, ... by fma, ascending),
///        then the fixed pairwise tree (lane i += lane i+8; then +4, +2, +1); mean = sum / d;
///        scale = 1 / sqrt(mean + eps) (IEEE); y = (x * scale) * weight.
/// Source transformers DeepseekV3RMSNorm.
void RmsNorm(const float* x, std::int64_t ldx, const float* weight, float eps, int m, int d,
             float* y, std::int64_t ldy, ThreadPool& pool);

/// Rotates adjacent pairs (2i, 2i+1) in place: (a, b) -> (a*cos - b*sin, b*cos + a*sin), each as
/// fma(a, cos, -(b*sin)) and fma(b, cos, a*sin).
///   x [m][heads][dim]: head h of row r starts at x + r * ldx + h * ldh
///   position [m]; table [positions][dim]: cos, sin interleaved for pair i at [2i], [2i+1]
/// Source DeepSeek-V3 inference/model.py apply_rotary_emb.
void Rope(float* x, std::int64_t ldx, int heads, std::int64_t ldh, int dim,
          const std::int32_t* position, int m, const float* table, ThreadPool& pool);

/// Fills table [positions][dim] for inv_freq [dim/2] with cos(a) * amplitude and sin(a) *
/// amplitude, a = p * inv_freq[i], in double by our own argument reduction and polynomials (no
/// libm: the bits must not depend on the C library), rounded to float.
void RopeTable(const double* inv_freq, int dim, int positions, double amplitude, float* table);

/// base^exponent, natural logarithm, in double without libm (relative error < 1e-14). For
/// frequencies and scales.
double Pow(double base, double exponent);
double LogDouble(double x);

/// y[r, i] = silu(g[r, i]) * u[r, i], silu(g) = g * (1 / (1 + exp(-g))), exp our polynomial
/// (kernels/math.h).
///   gate_up [m, 2*d]: gate in columns [0, d), up in [d, 2d); row stride ld
void SwiGlu(const float* gate_up, std::int64_t ld, int m, int d, float* y, std::int64_t ldy,
            ThreadPool& pool);

/// y[r, i] = a[r, i] + b[r, i]; y may alias a or b.
void Add(const float* a, const float* b, std::int64_t count, float* y, ThreadPool& pool);

/// Weighted sum of a token's experts, then the shared expert and the residual.
///
///   slot   [m, k] rows of expert_out    weight [m, k]
///   shared and residual may be null (then without them); y may alias residual
///
/// Order  acc = 0; j ascending (expert ids ascend): acc = fma(weight[r, j], out[slot[r, j], :],
/// acc);
///        y[r, :] = residual[r, :] + (acc + shared[r, :]).
void CombineExperts(const float* expert_out, std::int64_t lde, const std::int32_t* slot,
                    const float* weight, int k, const float* shared, std::int64_t lds,
                    const float* residual, std::int64_t ldr, int m, int d, float* y,
                    std::int64_t ldy, ThreadPool& pool);

}  // namespace temper::kernels
