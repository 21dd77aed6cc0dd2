// Linear layers of BF16 and FP8 weights on tensor cores, over the CPU's packed panels. A panel
// holds sixteen outputs side by side for each input, where a fragment wants two inputs of one
// output in a word: a lane takes four outputs of four inputs and exchanges bytes. Which outputs and
// inputs share a fragment's row and step is free, as long as both operands agree.
#include "kernels/cuda/device_math.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/groups.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/tensor.h"

namespace temper::kernels::cuda {
namespace {

constexpr int kParts = 8, kThreads = kParts * kWarpLanes;  // a warp each part of K
constexpr int kStep = 16, kOuts = 2 * kPanel, kWide = 8;   // inputs, outputs, rows of a fragment

__host__ __device__ inline int BlocksOf(int k) { return (k + kBlock - 1) / kBlock; }

/// The upper halves of two floats that are BF16 numbers.
__device__ __forceinline__ unsigned Pair(float low, float high) {
  return __byte_perm(__float_as_uint(low), __float_as_uint(high), 0x7632);
}

/// Four neighbouring outputs of input k, BF16; zeros past the matrix.
template <WeightType type>
__device__ __forceinline__ uint2 FourOutputs(const LinearWeight& w, int panel, int k) {
  if (k >= w.k || panel * kPanel >= w.n) return uint2{0, 0};
  const int out = threadIdx.x % kWarpLanes / 4 % 4 * 4;
  const std::int64_t at = (std::int64_t{panel} * w.k + k) * kPanel + out;
  if constexpr (type == WeightType::kBf16) {
    return *reinterpret_cast<const uint2*>(static_cast<const std::uint16_t*>(w.data) + at);
  }
  const unsigned c =
      *reinterpret_cast<const unsigned*>(static_cast<const std::uint8_t*>(w.data) + at);
  return {Pair(FromE4m3Shifted(c & 255u), FromE4m3Shifted(c >> 8 & 255u)),
          Pair(FromE4m3Shifted(c >> 16 & 255u), FromE4m3Shifted(c >> 24))};
}

/// Four inputs of a row as a column operand; zeros past the last row.
__device__ __forceinline__ uint2 FourInputs(const std::uint16_t* x, std::int64_t ld, int row,
                                            int rows, int k) {
  if (row >= rows) return uint2{0, 0};
  return *reinterpret_cast<const uint2*>(x + row * ld + k);
}

/// sum += W x over the sixteen inputs from k0.
template <WeightType type, bool kLow, int kRows>
__device__ __forceinline__ void Multiply(const TensorLinearArgs& a, int panel, int rows, int k0,
                                         float (&sum)[2][kRows][4]) {
  const int lane = threadIdx.x % kWarpLanes, group = lane / 4, k = k0 + lane % 4 * 4;
  uint2 w[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) w[i] = FourOutputs<type>(a.w, panel + group / 4, k + i);
  const std::uint32_t first[4] = {
      __byte_perm(w[0].x, w[1].x, 0x5410), __byte_perm(w[0].x, w[1].x, 0x7632),
      __byte_perm(w[2].x, w[3].x, 0x5410), __byte_perm(w[2].x, w[3].x, 0x7632)};
  const std::uint32_t second[4] = {
      __byte_perm(w[0].y, w[1].y, 0x5410), __byte_perm(w[0].y, w[1].y, 0x7632),
      __byte_perm(w[2].y, w[3].y, 0x5410), __byte_perm(w[2].y, w[3].y, 0x7632)};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const uint2 high = FourInputs(a.x.high, a.ldx, r * kWide + group, rows, k);
    MmaBf16(sum[0][r], first, {high.x, high.y});
    MmaBf16(sum[1][r], second, {high.x, high.y});
    if constexpr (kLow) {
      const uint2 low = FourInputs(a.x.low, a.ldx, r * kWide + group, rows, k);
      MmaBf16(sum[0][r], first, {low.x, low.y});
      MmaBf16(sum[1][r], second, {low.x, low.y});
    }
  }
}

/// total += sum, times the scales of block b.
template <WeightType type, int kRows>
__device__ __forceinline__ void Promote(const TensorLinearArgs& a, int panel, int rows, int b,
                                        const float (&sum)[2][kRows][4],
                                        float (&total)[2][kRows][4]) {
  const int lane = threadIdx.x % kWarpLanes, blocks = BlocksOf(a.w.k);
  float w = 1.0f;
  if constexpr (type == WeightType::kFp8) {
    // A panel lies in one block of 128 outputs; a panel past the last repeats its scale.
    const int out = min((panel + lane / 4 / 4) * kPanel, a.w.n - 1);
    w = a.w.scale[std::int64_t{out / kBlock} * blocks + b];
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float scale = w;
      if (a.x.scale != nullptr) {
        const int row = min(r * kWide + lane % 4 * 2 + i % 2, rows - 1);
        scale = a.x.scale[std::int64_t{row} * blocks + b] * w;
      }
      total[0][r][i] = fmaf(sum[0][r][i], scale, total[0][r][i]);
      total[1][r][i] = fmaf(sum[1][r][i], scale, total[1][r][i]);
    }
  }
}

/// The block's layer as if it were alone, its rows the first ones.
__device__ __forceinline__ TensorLinearArgs Alone(TensorLinearArgs a, const GroupTile& at) {
  const int g = at.group;
  a.w.data = static_cast<const unsigned char*>(a.w.data) + g * a.groups.w_step;
  if (a.w.scale != nullptr) a.w.scale += g * a.groups.scale_step;
  const std::int64_t x = g * a.groups.x_step + at.row0 * a.ldx;
  a.x.high += x;
  if (a.x.low != nullptr) a.x.low += x;
  if (a.x.scale != nullptr) a.x.scale += at.row0 * BlocksOf(a.w.k);
  a.y += g * a.groups.y_step + at.row0 * a.ldy;
  return a;
}

// One block: 32 outputs, kRows * 8 rows of a layer.
template <WeightType type, bool kLow, int kRows>
__global__ void __launch_bounds__(kThreads) TensorLinearKernel(TensorLinearArgs all) {
  constexpr int kTileRows = kRows * kWide, kTile = kOuts * kTileRows;
  float* part = DynamicShared<float>();  // [kParts][outputs][rows]
  const int tiles = (all.w.n + kOuts - 1) / kOuts;
  const GroupTile at =
      FindGroupTile(all.groups, all.m, kTileRows, static_cast<int>(blockIdx.x / tiles));
  if (at.rows == 0) return;
  const TensorLinearArgs a = Alone(all, at);
  const int panel = static_cast<int>(blockIdx.x % tiles) * 2;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const int blocks = BlocksOf(a.w.k);
  float total[2][kRows][4] = {};
  for (int b = blocks * warp / kParts; b < blocks * (warp + 1) / kParts; ++b) {
    float sum[2][kRows][4] = {};
    const int end = min((b + 1) * kBlock, a.w.k);
#pragma unroll 2
    for (int k = b * kBlock; k < end; k += kStep) {
      Multiply<type, kLow, kRows>(a, panel, at.rows, k, sum);
    }
    Promote<type, kRows>(a, panel, at.rows, b, sum, total);
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int out = lane / 4 * 4 + 2 * h + i / 2, row = r * kWide + lane % 4 * 2 + i % 2;
        part[warp * kTile + out * kTileRows + row] = total[h][r][i];
      }
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kTile; i += kThreads) {
    // Neighbouring threads write neighbouring outputs.
    const int out = i % kOuts, row = i / kOuts, n = panel * kPanel + out;
    if (n >= a.w.n || row >= at.rows) continue;
    float y = part[out * kTileRows + row];
    for (int p = 1; p < kParts; ++p) y = y + part[p * kTile + out * kTileRows + row];
    a.y[row * a.ldy + n] = y;
  }
}

template <WeightType type, bool kLow, int kRows>
void LaunchTiles(const TensorLinearArgs& a, cudaStream_t stream) {
  const std::int64_t tiles = (a.w.n + kOuts - 1) / kOuts;
  Launch("TensorLinear", TensorLinearKernel<type, kLow, kRows>,
         GridFor(tiles * GroupTiles(a.groups, a.m, kRows * kWide), 1, "TensorLinear"), kThreads,
         std::size_t{4} * kParts * kOuts * kRows * kWide, stream, a);
}

template <WeightType type, bool kLow>
void LaunchRows(const TensorLinearArgs& a, cudaStream_t stream) {
  // How many rows share a tile never changes a bit.
  const int rows = a.groups.offset != nullptr ? a.m / a.groups.count : a.m;
  if (rows <= 8) return LaunchTiles<type, kLow, 1>(a, stream);
  if (rows <= 16) return LaunchTiles<type, kLow, 2>(a, stream);
  LaunchTiles<type, kLow, 4>(a, stream);  // more would spill
}

// A warp a block of 128 inputs; lane l holds four of them.
__global__ void __launch_bounds__(kThreads)
    TensorInputsKernel(const float* x, std::int64_t ldx, int m, int k, std::int64_t ld,
                       ScaleRecipe recipe, TensorRows out) {
  const int blocks = BlocksOf(k), lane = threadIdx.x % kWarpLanes;
  const std::int64_t task =
      std::int64_t{blockIdx.x} * (kThreads / kWarpLanes) + threadIdx.x / kWarpLanes;
  if (task >= std::int64_t{m} * blocks) return;  // a whole warp
  const std::int64_t r = task / blocks;
  const int b = static_cast<int>(task % blocks), i = b * kBlock + 4 * lane;
  float v[4] = {};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (i + j < k) v[j] = x[r * ldx + i + j];
  }
  if (out.scale != nullptr) {
    float scale;
    const unsigned word = QuantizeBlock(v, recipe, &scale);
    if (lane == 0) out.scale[r * blocks + b] = scale;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const unsigned code = word >> (8 * j) & 255u;
      // NaN codes stay NaN: an exponent of fifteen would make them numbers.
      v[j] = (code & 0x7Fu) == 0x7Fu ? __uint_as_float(0x7FC00000u)
                                     : FromE4m3Shifted(code) * kFp8Shift;
    }
  }
  if (i >= ld) return;
  const float high[4] = {FromBf16(ToBf16(v[0])), FromBf16(ToBf16(v[1])), FromBf16(ToBf16(v[2])),
                         FromBf16(ToBf16(v[3]))};
  *reinterpret_cast<uint2*>(out.high + r * ld + i) =
      uint2{Pair(high[0], high[1]), Pair(high[2], high[3])};
  if (out.low == nullptr) return;
  float low[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) low[j] = FromBf16(ToBf16(v[j] - high[j]));
  *reinterpret_cast<uint2*>(out.low + r * ld + i) =
      uint2{Pair(low[0], low[1]), Pair(low[2], low[3])};
}

}  // namespace

std::int64_t TensorWidth(int k) { return (k + kStep - 1) / kStep * kStep; }

void TensorInputs(const float* x, std::int64_t ldx, int m, int k, ScaleRecipe recipe,
                  const TensorRows& out, cudaStream_t stream) {
  if (m < 0 || k < 1) throw std::logic_error("TensorInputs: needs m >= 0 and k >= 1");
  const std::int64_t tasks = std::int64_t{m} * BlocksOf(k);
  Launch("TensorInputs", TensorInputsKernel, GridFor(tasks, kThreads / kWarpLanes, "TensorInputs"),
         kThreads, 0, stream, x, ldx, m, k, TensorWidth(k), recipe, out);
}

void TensorLinear(const TensorLinearArgs& a, cudaStream_t stream) {
  const bool fp8 = a.w.type == WeightType::kFp8;
  if (a.m < 0 || a.w.n < 1 || a.w.k < 1 || a.w.type == WeightType::kF32 || a.groups.count < 1 ||
      fp8 != (a.w.scale != nullptr) || (a.x.scale != nullptr && (!fp8 || a.x.low != nullptr)) ||
      (a.x.scale != nullptr && a.groups.count > 1 && a.groups.offset == nullptr) ||
      a.ldx % 4 != 0 || a.ldx < TensorWidth(a.w.k) || a.groups.x_step % 4 != 0) {
    throw std::logic_error(
        "TensorLinear: needs BF16 or FP8 weights, n, k >= 1, rows of TensorWidth(k) elements");
  }
  if (fp8) {
    return a.x.low != nullptr ? LaunchRows<WeightType::kFp8, true>(a, stream)
                              : LaunchRows<WeightType::kFp8, false>(a, stream);
  }
  a.x.low != nullptr ? LaunchRows<WeightType::kBf16, true>(a, stream)
                     : LaunchRows<WeightType::kBf16, false>(a, stream);
}

}  // namespace temper::kernels::cuda
