#include "kernels/fp8.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/fp8_table.h"
#include "kernels/linear.h"
#include "kernels/parts.h"

namespace temper::kernels {
namespace {

constexpr std::uint32_t kSign = 0x80000000u;
constexpr std::uint32_t kInfinity = 0x7F800000u;

constexpr float Shifted(unsigned code) {
  const unsigned exponent = (code >> 3) & 15, mantissa = code & 7;
  const float size =
      exponent == 0 ? static_cast<float>(mantissa) * 0x1p-17f
                    : std::bit_cast<float>(((exponent + 127 - 7 - 8) << 23) | (mantissa << 20));
  return (code & 0x80) != 0 ? -size : size;
}

/// The E4M3 value nearest to x in [-448, 448], ties to even; NaN stays NaN. Branch-free, so that
/// loops over it become vector code.
inline float RoundE4m3(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = bits & kSign;
  const float size = std::bit_cast<float>(bits ^ sign);
  // Normal numbers: rounding bit 20 of the mantissa, a carry moves into the exponent.
  const std::uint32_t normal =
      ((bits ^ sign) + 0x7FFFFu + (((bits ^ sign) >> 20) & 1u)) & 0xFFF00000u;
  // Below 2^-6 the codes are 2^-9 apart, as floats near 1.5 * 2^14 are: adding that rounds.
  const float small = (size + 24576.0f) - 24576.0f;
  const std::uint32_t rounded = size < 0x1p-6f ? std::bit_cast<std::uint32_t>(small) : normal;
  const std::uint32_t number = (bits ^ sign) > kInfinity ? bits ^ sign : rounded;
  return std::bit_cast<float>(number | sign);
}

inline float Clamp(float x) {
  const float low = x < -kE4m3Max ? -kE4m3Max : x;
  return low > kE4m3Max ? kE4m3Max : low;
}

/// The code of an E4M3 value (or NaN).
inline std::uint8_t CodeOf(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits & kSign) >> 24, size = bits & ~kSign;
  if (size > kInfinity) return static_cast<std::uint8_t>(0x7F);
  if (size < std::bit_cast<std::uint32_t>(0x1p-6f)) {
    return static_cast<std::uint8_t>(
        sign | static_cast<std::uint32_t>(std::bit_cast<float>(size) * 512.0f));
  }
  return static_cast<std::uint8_t>(sign | ((size >> 20) - ((127 - 7) << 3)));
}

/// Bits of the largest magnitude; a NaN is larger than everything.
inline std::uint32_t LargestBits(const float* x, int n, std::uint32_t most) {
  for (int i = 0; i < n; ++i) most = std::max(most, std::bit_cast<std::uint32_t>(x[i]) & ~kSign);
  return most;
}

int Blocks(int n) { return (n + kBlock - 1) / kBlock; }

}  // namespace

constexpr E4m3Table kShiftedE4m3 = [] {
  E4m3Table table{};
  for (unsigned code = 0; code < 256; ++code) table.value[code] = Shifted(code);
  return table;
}();

constexpr E4m3Bytes kShiftedE4m3Bytes = [] {
  E4m3Bytes bytes{};
  for (unsigned code = 0; code < 128; ++code) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(Shifted(code));
    bytes.low[code] = static_cast<unsigned char>(bits >> 16);
    bytes.high[code] = static_cast<unsigned char>(bits >> 24);
  }
  return bytes;
}();

float DecodeE4m3(std::uint8_t code) {
  if ((code & 0x7F) == 0x7F) return std::numeric_limits<float>::quiet_NaN();
  return kShiftedE4m3.value[code] * kFp8Shift;
}

std::uint8_t EncodeE4m3(float x) { return CodeOf(RoundE4m3(Clamp(x))); }

float BlockScale(float amax, ScaleRecipe recipe) {
  const float floored = amax < 1e-12f ? 1e-12f : amax;
  const float quotient = floored / kE4m3Max;
  if (recipe == ScaleRecipe::kFp32) return quotient;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(quotient);
  if (bits >= kInfinity) return quotient;
  return std::bit_cast<float>((bits + 0x7FFFFFu) & kInfinity);
}

void QuantizeActivations(const float* x, std::int64_t ldx, int m, int k, ScaleRecipe recipe,
                         float* values, std::int64_t ldv, float* scales, ThreadPool& pool) {
  const int blocks = Blocks(k);
  ForPieces(pool, m, std::int64_t{k} * 700, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t r = first; r < end; ++r) {
      for (int b = 0; b < blocks; ++b) {
        const int n = std::min(kBlock, k - b * kBlock);
        const float* from = x + r * ldx + b * kBlock;
        float* to = values + r * ldv + b * kBlock;
        const float s = BlockScale(std::bit_cast<float>(LargestBits(from, n, 0)), recipe);
        scales[r * blocks + b] = s;
        for (int i = 0; i < n; ++i) to[i] = RoundE4m3(Clamp(from[i] / s));
      }
    }
  });
}

void QuantizeWeight(const float* w, std::int64_t ldw, int n, int k, ScaleRecipe recipe,
                    std::uint8_t* codes, std::int64_t ldc, float* scales, ThreadPool& pool) {
  const int blocks = Blocks(k);
  const auto block = [&](std::int64_t index) {
    const int i0 = static_cast<int>(index / blocks) * kBlock, j0 = index % blocks * kBlock;
    const int rows = std::min(kBlock, n - i0), columns = std::min(kBlock, k - j0);
    std::uint32_t most = 0;
    for (int i = i0; i < i0 + rows; ++i) most = LargestBits(w + i * ldw + j0, columns, most);
    const float s = BlockScale(std::bit_cast<float>(most), recipe);
    scales[index] = s;
    for (int i = i0; i < i0 + rows; ++i) {
      float value[kBlock];
      const float* from = w + i * ldw + j0;
      for (int j = 0; j < columns; ++j) value[j] = RoundE4m3(Clamp(from[j] / s));
      for (int j = 0; j < columns; ++j) codes[i * ldc + j0 + j] = CodeOf(value[j]);
    }
  };
  ForPieces(pool, std::int64_t{Blocks(n)} * blocks, std::int64_t{kBlock} * kBlock * 1500,
            [&](std::int64_t first, std::int64_t end) {
              for (std::int64_t i = first; i < end; ++i) block(i);
            });
}

void DequantizeWeight(const std::uint8_t* codes, std::int64_t ldc, int n, int k,
                      const float* scales, float* out, std::int64_t ldo, ThreadPool& pool) {
  const int blocks = Blocks(k);
  ForPieces(pool, n, std::int64_t{k} * 700, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t i = first; i < end; ++i) {
      const float* scale = scales + i / kBlock * blocks;
      for (int j = 0; j < k; ++j) {
        out[i * ldo + j] = DecodeE4m3(codes[i * ldc + j]) * scale[j / kBlock];
      }
    }
  });
}

std::string CheckFp8Weight(const std::uint8_t* codes, std::int64_t ldc, int n, int k,
                           const float* scales) {
  constexpr float kLargest = std::numeric_limits<float>::max() / kE4m3Max;
  const int blocks = Blocks(k);
  for (int b = 0; b < Blocks(n) * blocks; ++b) {
    if (scales[b] > 0.0f && scales[b] <= kLargest) continue;
    const std::string where = "scale [" + std::to_string(b / blocks) + ", " +
                              std::to_string(b % blocks) + "] is " + std::to_string(scales[b]);
    if (scales[b] > kLargest && scales[b] <= std::numeric_limits<float>::max()) {
      return where + "; 448 times it is no finite float";
    }
    return where + "; a scale is positive and finite";
  }
  for (int i = 0; i < n; ++i) {
    unsigned found = 0;
    for (int j = 0; j < k; ++j) found |= (codes[i * ldc + j] & 0x7Fu) == 0x7Fu;
    if (found == 0) continue;
    int j = 0;
    while ((codes[i * ldc + j] & 0x7F) != 0x7F) ++j;
    return "entry [" + std::to_string(i) + ", " + std::to_string(j) + "] is a NaN code";
  }
  return "";
}

}  // namespace temper::kernels
