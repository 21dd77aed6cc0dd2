#include "engine/cuda/linear.h"

namespace temper::engine::cuda {

namespace kc = kernels::cuda;
using kernels::WeightType;

LinearInput PrepareInput(const Numerics& numerics, const DeviceLinear& w, const float* x,
                         std::int64_t ldx, int m, LinearRoom room, cudaStream_t stream) {
  LinearInput in{x, ldx};
  const bool quantizes = numerics.quantizes_inputs() && w.w.type == WeightType::kFp8;
  auto* const bytes = reinterpret_cast<std::uint8_t*>(room.inputs);
  if (numerics.tensor && w.w.type != WeightType::kF32) {
    in.split = true;
    in.ldx = kc::TensorWidth(w.w.k);
    in.tensor.high = reinterpret_cast<std::uint16_t*>(bytes);
    if (quantizes) {
      in.tensor.scale = room.scales;
    } else {
      in.tensor.low = in.tensor.high + std::int64_t{m} * in.ldx;
    }
    kc::TensorInputs(x, ldx, m, w.w.k, numerics.scale, in.tensor, stream);
  } else if (quantizes) {
    in.codes = bytes;
    in.scales = room.scales;
    kc::Quantize(x, ldx, m, w.w.k, {bytes, room.scales, numerics.scale}, stream);
  }
  return in;
}

void RunLinear(const DeviceLinear& w, const LinearInput& in, int m, float* y, std::int64_t ldy,
               cudaStream_t stream) {
  if (in.split) return kc::TensorLinear({w.w, in.tensor, in.ldx, m, y, ldy, w.groups}, stream);
  kc::Linear({w.w, in.codes ? nullptr : in.x, in.ldx, in.codes, in.scales, m, y, ldy, w.groups},
             stream);
}

void RunHeads(const Numerics& numerics, const DeviceLinear& w, const float* x, std::int64_t x_step,
              int heads, int m, float* y, std::int64_t y_step, std::int64_t ldy, LinearRoom room,
              cudaStream_t stream) {
  DeviceLinear all = w;
  all.groups.y_step = y_step;
  if (numerics.tensor && w.w.type != WeightType::kF32) {
    // Each head's input is a row of its own.
    const std::int64_t ld = kc::TensorWidth(w.w.k);
    auto* const high = reinterpret_cast<std::uint16_t*>(room.inputs);
    const kc::TensorRows rows{high, high + std::int64_t{m} * heads * ld, nullptr};
    kc::TensorInputs(x, x_step, m * heads, w.w.k, numerics.scale, rows, stream);
    all.groups.x_step = ld;
    return kc::TensorLinear({w.w, rows, ld * heads, m, y, ldy, all.groups}, stream);
  }
  all.groups.x_step = x_step;
  kc::Linear({w.w, x, x_step * heads, nullptr, nullptr, m, y, ldy, all.groups}, stream);
}

}  // namespace temper::engine::cuda
