#pragma once
// BF16, the upper half of a float: rounding to nearest even and back.
#include <cstdint>

#include "kernels/thread_pool.h"

namespace temper::kernels {

/// Ties to even; overflow gives infinity, any NaN 0x7fc0 (as PyTorch).
std::uint16_t EncodeBf16(float x);
float DecodeBf16(std::uint16_t x);  // exact

void EncodeBf16(const float* x, std::int64_t n, std::uint16_t* out);
void DecodeBf16(const std::uint16_t* x, std::int64_t n, float* out);

/// x[i] = DecodeBf16(EncodeBf16(x[i])): what block outputs become in the bf16 and fp8 modes.
void RoundBf16(float* x, std::int64_t n);
void RoundBf16(float* x, std::int64_t n, ThreadPool& pool);

/// Place of the first infinity or NaN, or -1.
std::int64_t FindNonFinite(const float* x, std::int64_t n);
std::int64_t FindNonFinite(const std::uint16_t* x, std::int64_t n);  // BF16

}  // namespace temper::kernels
