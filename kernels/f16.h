#pragma once
// F16 (IEEE binary16), which some checkpoints are stored in.
#include <cstdint>

namespace temper::kernels {

/// Exact, subnormals and infinities included; a NaN becomes a quiet one.
void DecodeF16(const std::uint16_t* x, std::int64_t n, float* out);

}  // namespace temper::kernels
