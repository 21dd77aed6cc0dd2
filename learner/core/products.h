#pragma once
// The two matrix products of a linear layer's backward pass, many layers in one parallel region. No
// LibTorch.
#include <cstdint>
#include <span>

#include "kernels/thread_pool.h"

namespace temper::learner {

/// Of y = x W^T. `g` [m, n] is d loss / d y; W [n, k] contiguous; dx [m, k], dw [n, k] contiguous.
/// m may be 0.
struct LinearBackward {
  std::int64_t m = 0;
  int n = 0, k = 0;
  const float* g = nullptr;
  std::int64_t ldg = 0;
  const float* x = nullptr;  // [m, k]; for WeightGradients
  std::int64_t ldx = 0;
  const float* w = nullptr;  // for InputGradients
  float* dx = nullptr;
  std::int64_t lddx = 0;
  float* dw = nullptr;
};

/// dx = g W, overwritten: kernels::LinearMany on the transposed weights, packed here.
void InputGradients(std::span<const LinearBackward> layers, kernels::ThreadPool& pool);

/// dw = g^T x, overwritten (zeros where m is 0). Order: blocks of 256 rows; in a block a = fma(g,
/// x, a), rows ascending, a from 0; then dw += a, blocks ascending. The same bits for any number of
/// threads, on AVX2 and AVX-512.
void WeightGradients(std::span<const LinearBackward> layers, kernels::ThreadPool& pool);

}  // namespace temper::learner
