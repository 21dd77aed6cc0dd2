#pragma once
// Linear layers in the canonical order: y = x W^T, batch-invariant, bitwise equal in every variant.
#include <cstddef>
#include <cstdint>

#include "kernels/thread_pool.h"

namespace temper::kernels {

inline constexpr int kPanel = 16;   // outputs a panel
inline constexpr int kBlock = 128;  // inputs a block of the sum

/// Weights [N, K] packed in panels of 16 outputs, 64-byte aligned:
/// data[(i / 16) * K * 16 + k * 16 + i % 16] = W[i, k]; outputs past N are zero.
struct LinearWeight {
  const float* data = nullptr;  // [ceil(N/16)][K][16]
  int n = 0;                    // outputs
  int k = 0;                    // inputs
};

/// Floats of a packed [n, k] matrix.
std::size_t PackedSize(int n, int k);

/// Packs W [n, k], row stride ldw floats, into out [PackedSize(n, k)].
void PackLinear(const float* w, std::int64_t ldw, int n, int k, float* out);

/// The same for the transpose: packs T [n, k] with T[i, j] = w[j * ldw + i].
void PackLinearTransposed(const float* w, std::int64_t ldw, int n, int k, float* out);

/// y[r, i] = sum_k W[i, k] x[r, k] for r < m.
///
///   x  [m, K]  row stride ldx floats        y  [m, N]  row stride ldy floats, must not alias x
///
/// Order  for each output and each block of 128 inputs: a = fma(w_k, x_k, a), k ascending, a from
/// 0;
///        then y = y + a (y = fma(a, 1, y)), blocks ascending, y from 0. Never split over K; a
///        row's bits depend on nothing but the row.
/// Cost   4*N*K bytes of weights once per call and row tile, 2*m*N*K flop.
void Linear(const LinearWeight& w, const float* x, std::int64_t ldx, int m, float* y,
            std::int64_t ldy, ThreadPool& pool);

/// Many linear layers in one parallel region (heads of MLA, experts of a MoE layer). Each item as
/// Linear() alone.
struct LinearItem {
  LinearWeight w;
  const float* x;
  std::int64_t ldx;
  int m;  // may be 0
  float* y;
  std::int64_t ldy;
};
void LinearMany(const LinearItem* items, int count, ThreadPool& pool);

}  // namespace temper::kernels
