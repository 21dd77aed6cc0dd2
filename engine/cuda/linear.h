#pragma once
// Linear layers on a device as the numeric mode computes them: the same for generation and
// training.
#include <cstdint>

#include "engine/cuda/weights.h"
#include "engine/numerics.h"
#include "kernels/cuda/cuda_kernels.h"

namespace temper::engine::cuda {

/// A linear layer's inputs: as they are, codes, or what tensor cores take.
struct LinearInput {
  const float* x = nullptr;
  std::int64_t ldx = 0;
  const std::uint8_t* codes = nullptr;
  const float* scales = nullptr;
  kernels::cuda::TensorRows tensor = {};
  bool split = false;
};

/// Device memory for what PrepareInput() makes of [m, k] inputs: 4 m TensorWidth(k) bytes, and as
/// many floats as m TensorWidth(k) / 16.
struct LinearRoom {
  std::byte* inputs;
  float* scales;
};

LinearInput PrepareInput(const Numerics& numerics, const DeviceLinear& w, const float* x,
                         std::int64_t ldx, int m, LinearRoom room, cudaStream_t stream);
void RunLinear(const DeviceLinear& w, const LinearInput& in, int m, float* y, std::int64_t ldy,
               cudaStream_t stream);
/// Head n of x [m][heads][K], its rows x_step apart, gives y + n y_step. Their inputs are never
/// quantised.
void RunHeads(const Numerics& numerics, const DeviceLinear& w, const float* x, std::int64_t x_step,
              int heads, int m, float* y, std::int64_t y_step, std::int64_t ldy, LinearRoom room,
              cudaStream_t stream);

}  // namespace temper::engine::cuda
