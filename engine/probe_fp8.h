#pragma once
// The quantisation probe: codes, multipliers and products of given matrices.
#include <string>

#include "kernels/fp8.h"

namespace temper::engine {

/// Reads x F32 [M, K] and w F32 [N, K] of a safetensors file; writes x_q, w_q F8_E4M3, x_scale F32
/// [M, ceil(K/128)], w_scale F32 [ceil(N/128), ceil(K/128)] (multipliers) and y_w8a8, y_w8a16 F32
/// [M, N] = x w^T with both quantised, with w quantised. Throws UserError for other shapes and
/// values that are not finite.
void ProbeFp8(const std::string& in, const std::string& out, kernels::ScaleRecipe recipe);

}  // namespace temper::engine
