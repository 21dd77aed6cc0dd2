// W8A8 for few rows on tensor cores: the weights are the tall operand, so that eight rows of
// activations fill a fragment. Which inputs share a step of the tensor core is free, so a lane
// reads sixteen bytes at once and both operands are permuted alike.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/tensor.h"

namespace temper::kernels::cuda {
namespace {

constexpr int kParts = 8, kThreads = kParts * kWarpLanes;  // a warp each part of K
constexpr int kTall = 16, kWide = 8;                       // outputs and rows of a fragment

struct Gemm {
  const std::uint8_t* w;
  const float* w_scale;
  const std::uint8_t* x;
  const float* x_scale;
  int m, n, k;
  float* y;
  std::int64_t ldy;
};

/// Sixteen codes of a row from `at`, zeros past the last row.
__device__ __forceinline__ uint4 CodesOf(const std::uint8_t* from, int row, int rows, int k,
                                         int at) {
  if (row >= rows) return uint4{0, 0, 0, 0};
  return *reinterpret_cast<const uint4*>(from + std::int64_t{row} * k + at);
}

/// sum += W X over the 64 inputs from k0.
template <int kOuts, int kRows>
__device__ __forceinline__ void Multiply(const Gemm& g, int out0, int row0, int k0,
                                         float (&sum)[kOuts][kRows][4]) {
  const int lane = threadIdx.x % kWarpLanes, group = lane / 4, at = k0 + lane % 4 * 16;
  uint4 low[kOuts], high[kOuts];
#pragma unroll
  for (int o = 0; o < kOuts; ++o) {
    low[o] = CodesOf(g.w, out0 + o * kTall + group, g.n, g.k, at);
    high[o] = CodesOf(g.w, out0 + o * kTall + group + 8, g.n, g.k, at);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const uint4 x = CodesOf(g.x, row0 + r * kWide + group, g.m, g.k, at);
#pragma unroll
    for (int o = 0; o < kOuts; ++o) {
      MmaE4m3(sum[o][r], {low[o].x, high[o].x, low[o].y, high[o].y}, {x.x, x.y});
      MmaE4m3(sum[o][r], {low[o].z, high[o].z, low[o].w, high[o].w}, {x.z, x.w});
    }
  }
}

/// total += sum fl(x_scale w_scale) for block b.
template <int kOuts, int kRows>
__device__ __forceinline__ void Promote(const Gemm& g, int out0, int row0, int b,
                                        const float (&sum)[kOuts][kRows][4],
                                        float (&total)[kOuts][kRows][4]) {
  const int blocks = (g.k + kBlock - 1) / kBlock, pair = threadIdx.x % 4 * 2;
#pragma unroll
  for (int o = 0; o < kOuts; ++o) {
    // Sixteen outputs lie in one block of 128; tiles past n repeat the last scale.
    const int scale_row = min(out0 + o * kTall, g.n - 1) / kBlock;
    const float w = g.w_scale[std::int64_t{scale_row} * blocks + b];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = min(row0 + r * kWide + pair + i % 2, g.m - 1);
        const float scale = g.x_scale[std::int64_t{row} * blocks + b] * w;
        total[o][r][i] = fmaf(sum[o][r][i], scale, total[o][r][i]);
      }
    }
  }
}

// One block: kOuts * 16 outputs, kRows * 8 rows.
template <int kOuts, int kRows>
__global__ void __launch_bounds__(kThreads) Fp8GemmKernel(Gemm g) {
  constexpr int kTileRows = kRows * kWide, kTile = kOuts * kTall * kTileRows;
  float* part = DynamicShared<float>();  // [kParts][outputs][rows]
  const int tiles = (g.n + kOuts * kTall - 1) / (kOuts * kTall);
  const int out0 = static_cast<int>(blockIdx.x % tiles) * kOuts * kTall;
  const int row0 = static_cast<int>(blockIdx.x / tiles) * kTileRows;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const int blocks = (g.k + kBlock - 1) / kBlock;
  float total[kOuts][kRows][4] = {};
  for (int b = blocks * warp / kParts; b < blocks * (warp + 1) / kParts; ++b) {
    float sum[kOuts][kRows][4] = {};
    Multiply(g, out0, row0, b * kBlock, sum);
    if (b * kBlock + 64 < g.k) Multiply(g, out0, row0, b * kBlock + 64, sum);
    Promote(g, out0, row0, b, sum, total);
  }
#pragma unroll
  for (int o = 0; o < kOuts; ++o) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int out = o * kTall + lane / 4 + 8 * (i / 2), row = r * kWide + lane % 4 * 2 + i % 2;
        part[warp * kTile + out * kTileRows + row] = total[o][r][i];
      }
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kTile; i += kThreads) {
    // Neighbouring threads write neighbouring outputs.
    const int out = i % (kOuts * kTall), row = i / (kOuts * kTall);
    if (out0 + out >= g.n || row0 + row >= g.m) continue;
    float y = part[out * kTileRows + row];
    for (int p = 1; p < kParts; ++p) y = y + part[p * kTile + out * kTileRows + row];
    g.y[(row0 + row) * g.ldy + out0 + out] = y;
  }
}

template <int kOuts, int kRows>
void LaunchTiles(const Gemm& g, cudaStream_t stream) {
  constexpr int kOutputs = kOuts * kTall, kTileRows = kRows * kWide;
  const std::int64_t tiles = (g.n + kOutputs - 1) / kOutputs;
  const std::int64_t grid = tiles * ((g.m + kTileRows - 1) / kTileRows);
  Launch("Fp8Gemm", Fp8GemmKernel<kOuts, kRows>, GridFor(grid, 1, "Fp8Gemm"), kThreads,
         std::size_t{4} * kParts * kOutputs * kTileRows, stream, g);
}

}  // namespace

void Fp8Gemm(const std::uint8_t* w, const float* w_scale, const std::uint8_t* x,
             const float* x_scale, int m, int n, int k, float* y, std::int64_t ldy,
             cudaStream_t stream) {
  if (m < 0 || n < 1 || k < 64 || k % 64 != 0) {
    throw std::logic_error("Fp8Gemm: needs n >= 1 and k a multiple of 64");
  }
  const Gemm g{w, w_scale, x, x_scale, m, n, k, y, ldy};
  if (m <= 8) return LaunchTiles<1, 1>(g, stream);
  if (m <= 16) return LaunchTiles<1, 2>(g, stream);
  if (m <= 32) return LaunchTiles<1, 4>(g, stream);
  LaunchTiles<1, 8>(g, stream);
}

}  // namespace temper::kernels::cuda
