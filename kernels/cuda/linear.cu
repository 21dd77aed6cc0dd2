// Linear layers in the canonical order. The blocks of 128 inputs are sums of their own, so they run
// side by side and only their merge is serial: the CPU's bits at a GEMV's parallelism.
#include "kernels/cuda/formats.h"
#include "kernels/cuda/groups.h"
#include "kernels/cuda/launch.h"

namespace temper::kernels::cuda {
namespace {

constexpr int kThreads = 256, kGroups = kThreads / kPanel;

template <WeightType type>
__device__ __forceinline__ float WeightAt(const void* data, std::int64_t i) {
  if constexpr (type == WeightType::kF32) return static_cast<const float*>(data)[i];
  if constexpr (type == WeightType::kBf16) {
    return FromBf16(static_cast<const std::uint16_t*>(data)[i]);
  }
  return FromE4m3Shifted(static_cast<const std::uint8_t*>(data)[i]);
}

/// Input j of row r: a float, or the value of a code.
__device__ __forceinline__ float InputAt(const LinearArgs& a, std::int64_t r, int j) {
  if (a.x != nullptr) return a.x[r * a.ldx + j];
  const unsigned code = a.codes[r * a.w.k + j];
  if ((code & 0x7Fu) == 0x7Fu) return __uint_as_float(0x7FC00000u);
  return FromE4m3Shifted(code) * kFp8Shift;
}

/// The block's layer as if it were alone, its rows the first ones.
__device__ __forceinline__ LinearArgs Alone(LinearArgs a, const GroupTile& at) {
  const int g = at.group;
  a.w.data = static_cast<const unsigned char*>(a.w.data) + g * a.groups.w_step;
  if (a.w.scale != nullptr) a.w.scale += g * a.groups.scale_step;
  if (a.x != nullptr) a.x += g * a.groups.x_step + at.row0 * a.ldx;
  if (a.codes != nullptr) a.codes += at.row0 * a.w.k;
  if (a.x_scale != nullptr) a.x_scale += at.row0 * ((a.w.k + kBlock - 1) / kBlock);
  a.y += g * a.groups.y_step + at.row0 * a.ldy;
  return a;
}

// One block: a panel of 16 outputs, kRows rows of a layer. Sixteen threads a block of inputs.
template <WeightType type, int kRows>
__global__ void __launch_bounds__(kThreads) LinearKernel(LinearArgs all) {
  float* part = DynamicShared<float>();  // [blocks][kRows][16]
  const int all_panels = (all.w.n + kPanel - 1) / kPanel;
  const GroupTile tile =
      FindGroupTile(all.groups, all.m, kRows, static_cast<int>(blockIdx.x / all_panels));
  if (tile.rows == 0) return;
  const LinearArgs a = Alone(all, tile);
  const int panels = (a.w.n + kPanel - 1) / kPanel, blocks = (a.w.k + kBlock - 1) / kBlock;
  const int panel = blockIdx.x % panels, out = threadIdx.x % kPanel;
  const int rows = tile.rows;
  for (int b = threadIdx.x / kPanel; b < blocks; b += kGroups) {
    float sum[kRows] = {};
    const int end = min((b + 1) * kBlock, a.w.k);
#pragma unroll 4
    for (int j = b * kBlock; j < end; ++j) {
      const float w = WeightAt<type>(a.w.data, (std::int64_t{panel} * a.w.k + j) * kPanel + out);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        // Rows past the last repeat it and are not stored.
        sum[r] = fmaf(w, InputAt(a, min(r, rows - 1), j), sum[r]);
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) part[(b * kRows + r) * kPanel + out] = sum[r];
  }
  __syncthreads();
  const int r = threadIdx.x / kPanel, i = panel * kPanel + out;
  if (r >= rows || i >= a.w.n) return;
  float y = 0.0f;
  for (int b = 0; b < blocks; ++b) {
    float s = 1.0f;
    if constexpr (type == WeightType::kFp8) s = a.w.scale[std::int64_t{i / kBlock} * blocks + b];
    if (a.x_scale != nullptr) s = a.x_scale[std::int64_t{r} * blocks + b] * s;
    y = fmaf(part[(b * kRows + r) * kPanel + out], s, y);
  }
  a.y[r * a.ldy + i] = y;
}

template <WeightType type, int kRows>
void LaunchRows(const LinearArgs& a, cudaStream_t stream) {
  const std::int64_t panels = (a.w.n + kPanel - 1) / kPanel, blocks = (a.w.k + kBlock - 1) / kBlock;
  const std::int64_t tiles = GroupTiles(a.groups, a.m, kRows);
  const std::size_t shared = static_cast<std::size_t>(blocks) * kRows * kPanel * 4;
  Launch("Linear", LinearKernel<type, kRows>, GridFor(panels * tiles, 1, "Linear"), kThreads,
         shared, stream, a);
}

template <WeightType type>
void LaunchType(const LinearArgs& a, cudaStream_t stream) {
  if (a.m == 1 || (a.groups.offset != nullptr && a.m <= a.groups.count))
    return LaunchRows<type, 1>(a, stream);
  LaunchRows<type, 4>(a, stream);
}

}  // namespace

void Linear(const LinearArgs& a, cudaStream_t stream) {
  const bool fp8 = a.w.type == WeightType::kFp8;
  if (a.m < 0 || a.w.n < 1 || a.w.k < 1 || (a.x == nullptr) == (a.codes == nullptr) ||
      fp8 != (a.w.scale != nullptr) || (a.x_scale != nullptr && !fp8) ||
      (a.codes != nullptr && a.x_scale == nullptr) || a.groups.count < 1 ||
      (a.codes != nullptr && a.groups.count > 1 && a.groups.offset == nullptr)) {
    throw std::logic_error(
        "Linear: needs n, k >= 1, one of x and codes, scales with FP8 and only with it");
  }
  switch (a.w.type) {
    case WeightType::kF32:
      return LaunchType<WeightType::kF32>(a, stream);
    case WeightType::kBf16:
      return LaunchType<WeightType::kBf16>(a, stream);
    case WeightType::kFp8:
      return LaunchType<WeightType::kFp8>(a, stream);
  }
}

}  // namespace temper::kernels::cuda
