#pragma once
// Linear layers in the canonical order: y = x W^T, batch-invariant, bitwise equal in every variant.
#include <cstddef>
#include <cstdint>

#include "kernels/thread_pool.h"

namespace temper::kernels {

inline constexpr int kPanel = 16;   // outputs a panel
inline constexpr int kBlock = 128;  // inputs a block of the sum; also the sides of an FP8 block

enum class WeightType { kF32, kBf16, kFp8 };  // float, u16, E4M3 code
std::size_t ElementBytes(WeightType type);    // 4, 2, 1

/// Weights [N, K] packed in panels of 16 outputs, 64-byte aligned:
/// data[(i / 16) * K * 16 + k * 16 + i % 16] = W[i, k]; outputs past N are zero.
struct LinearWeight {
  const void* data = nullptr;  // [ceil(N/16)][K][16] elements of the type
  int n = 0;                   // outputs
  int k = 0;                   // inputs
  WeightType type = WeightType::kF32;
  /// FP8 only: [ceil(N/128)][ceil(K/128)], the dequantisation multipliers times 2^8 (exact; see
  /// CheckFp8Weight). In every variant a code counts as its value times 2^-8.
  const float* scale = nullptr;
};

/// Elements and bytes of a packed [n, k] matrix.
std::size_t PackedSize(int n, int k);
std::size_t PackedBytes(WeightType type, int n, int k);

/// Packs W [n, k], row stride ldw elements, into out [PackedSize(n, k)].
void PackLinear(const float* w, std::int64_t ldw, int n, int k, float* out);
void PackBf16(const std::uint16_t* w, std::int64_t ldw, int n, int k, std::uint16_t* out);
void PackFp8(const std::uint8_t* w, std::int64_t ldw, int n, int k, std::uint8_t* out);

/// The same for the transpose: packs T [n, k] with T[i, j] = w[j * ldw + i].
void PackLinearTransposed(const float* w, std::int64_t ldw, int n, int k, float* out);
void PackBf16Transposed(const std::uint16_t* w, std::int64_t ldw, int n, int k, std::uint16_t* out);
void PackFp8Transposed(const std::uint8_t* w, std::int64_t ldw, int n, int k, std::uint8_t* out);

/// Packs w [rows, k] into the rows [first, first + rows) of a packed matrix that others share (gate
/// above up). The other rows stay as they are, those past the last one too: zero them once.
void PackRows(const float* w, std::int64_t ldw, int rows, int k, int first, float* out);
void PackRows(const std::uint16_t* w, std::int64_t ldw, int rows, int k, int first,
              std::uint16_t* out);
void PackRows(const std::uint8_t* w, std::int64_t ldw, int rows, int k, int first,
              std::uint8_t* out);

/// y[r, i] = sum_k W[i, k] x[r, k] for r < m.
///
///   x  [m, K]  row stride ldx floats        y  [m, N]  row stride ldy floats, must not alias x
///
/// Order  for each output and each block of 128 inputs: a = fma(w_k, x_k, a), k ascending, a from
///        0; then y = fma(a, s, y), blocks ascending, y from 0. s is 1 for FP32 and BF16 (y + a),
///        the block's scale for FP8. Never split over K; a row's bits depend on nothing but the
///        row.
/// Cost   N*K elements of weights once per call and row tile, 2*m*N*K flop.
/// Throws std::logic_error on shapes that mean nothing, FP8 without scales, x_scale without FP8.
void Linear(const LinearWeight& w, const float* x, std::int64_t ldx, int m, float* y,
            std::int64_t ldy, ThreadPool& pool);

/// Many linear layers in one parallel region (heads of MLA, experts of a MoE layer). Each item as
/// Linear() alone. FP8 matrices whose blocks of 128 rows don't line up (gate and up of 10944 rows)
/// are two items whose y lie side by side.
struct LinearItem {
  LinearWeight w;
  const float* x;
  std::int64_t ldx;
  int m;  // may be 0
  float* y;
  std::int64_t ldy;
  /// W8A8 (FP8 weights only): x holds E4M3 values, x_scale [m][ceil(K/128)] with row stride
  /// ld_x_scale their multipliers (QuantizeActivations); then s = fl(x_scale * w.scale).
  const float* x_scale = nullptr;
  std::int64_t ld_x_scale = 0;
};
void LinearMany(const LinearItem* items, int count, ThreadPool& pool);

}  // namespace temper::kernels
