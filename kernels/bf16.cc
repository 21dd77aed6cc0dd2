#include "kernels/bf16.h"

#include <algorithm>
#include <bit>

#include "kernels/parts.h"

namespace temper::kernels {
namespace {

/// The float's bits with the lower half rounded away, ties to even. Branch-free for vector code.
inline std::uint32_t RoundedBits(std::uint32_t bits) {
  const std::uint32_t rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
  return ((bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC00000u : rounded) & 0xFFFF0000u;
}

// A run without a branch a value, which the compiler turns into vector code.
template <typename Bits>
std::int64_t FindExponent(const Bits* bits, std::int64_t n, Bits exponent) {
  constexpr std::int64_t kRun = 1024;
  for (std::int64_t at = 0; at < n; at += kRun) {
    const std::int64_t end = std::min(n, at + kRun);
    Bits any = 0;
    for (std::int64_t i = at; i < end; ++i) any |= (bits[i] & exponent) == exponent ? 1 : 0;
    if (any == 0) continue;
    while ((bits[at] & exponent) != exponent) ++at;
    return at;
  }
  return -1;
}

}  // namespace

std::int64_t FindNonFinite(const float* x, std::int64_t n) {
  return FindExponent<std::uint32_t>(reinterpret_cast<const std::uint32_t*>(x), n, 0x7F800000u);
}
std::int64_t FindNonFinite(const std::uint16_t* x, std::int64_t n) {
  return FindExponent<std::uint16_t>(x, n, 0x7F80u);
}

std::uint16_t EncodeBf16(float x) {
  return static_cast<std::uint16_t>(RoundedBits(std::bit_cast<std::uint32_t>(x)) >> 16);
}

float DecodeBf16(std::uint16_t x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x) << 16);
}

void EncodeBf16(const float* x, std::int64_t n, std::uint16_t* out) {
  for (std::int64_t i = 0; i < n; ++i) {
    out[i] = static_cast<std::uint16_t>(RoundedBits(std::bit_cast<std::uint32_t>(x[i])) >> 16);
  }
}

void DecodeBf16(const std::uint16_t* x, std::int64_t n, float* out) {
  for (std::int64_t i = 0; i < n; ++i) {
    out[i] = std::bit_cast<float>(static_cast<std::uint32_t>(x[i]) << 16);
  }
}

void RoundBf16(float* x, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    x[i] = std::bit_cast<float>(RoundedBits(std::bit_cast<std::uint32_t>(x[i])));
  }
}

void RoundBf16(float* x, std::int64_t n, ThreadPool& pool) {
  ForPieces(pool, n, 150,
            [=](std::int64_t first, std::int64_t end) { RoundBf16(x + first, end - first); });
}

}  // namespace temper::kernels
