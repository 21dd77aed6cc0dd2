#pragma once
// E8M0 to FP32, by its bits. BF16 and F16 are in kernels/.
#include <bit>
#include <cstdint>

namespace temper::engine {

/// 2^(code - 127), the spelling of power-of-two scales; NaN for 255.
inline float FloatOfE8m0(std::uint8_t code) {
  if (code == 255) return std::bit_cast<float>(0x7FC00000u);
  return std::bit_cast<float>(code == 0 ? 0x00400000u : std::uint32_t{code} << 23);
}

}  // namespace temper::engine
