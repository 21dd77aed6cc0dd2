#include "kernels/cache_row.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/bf16.h"
#include "kernels/fp8.h"
#include "kernels/linear.h"

namespace temper::kernels {
namespace {

constexpr std::size_t kAlign = 16;

std::size_t Padded(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

/// Where the parts of an FP8 row begin.
struct Fp8Row {
  explicit Fp8Row(int latent)
      : blocks((latent + kBlock - 1) / kBlock),
        scales((static_cast<std::size_t>(latent) + 3) / 4 * 4),
        rope(scales + 4 * static_cast<std::size_t>(blocks)) {}
  int blocks;
  std::size_t scales, rope;  // bytes
};

void StoreBf16(const float* x, int n, unsigned char* to) {
  for (int i = 0; i < n; ++i) {
    const std::uint16_t code = EncodeBf16(x[i]);
    std::memcpy(to + 2 * i, &code, 2);
  }
}

void LoadBf16(const unsigned char* from, int n, float* x) {
  for (int i = 0; i < n; ++i) {
    std::uint16_t code;
    std::memcpy(&code, from + 2 * i, 2);
    x[i] = DecodeBf16(code);
  }
}

void StoreFp8(const float* row, int latent, unsigned char* to) {
  const Fp8Row at(latent);
  for (int b = 0; b < at.blocks; ++b) {
    const int first = b * kBlock, end = std::min(first + kBlock, latent);
    // The largest magnitude by bits: a NaN counts as larger than everything.
    std::uint32_t most = 0;
    for (int i = first; i < end; ++i)
      most = std::max(most, std::bit_cast<std::uint32_t>(row[i]) & 0x7FFFFFFFu);
    const float s = BlockScale(std::bit_cast<float>(most), ScaleRecipe::kPow2);
    std::memcpy(to + at.scales + 4 * static_cast<std::size_t>(b), &s, 4);
    for (int i = first; i < end; ++i) to[i] = EncodeE4m3(row[i] / s);
  }
}

}  // namespace

std::size_t CacheRowBytes(CacheType type, int latent, int rope) {
  const std::size_t dim = static_cast<std::size_t>(latent) + static_cast<std::size_t>(rope);
  if (type == CacheType::kF32) return Padded(4 * dim);
  if (type == CacheType::kBf16) return Padded(2 * dim);
  return Padded(Fp8Row(latent).rope + 2 * static_cast<std::size_t>(rope));
}

void StoreCacheRow(CacheType type, const float* row, int latent, int rope, void* to) {
  unsigned char* out = static_cast<unsigned char*>(to);
  std::size_t used = 4 * static_cast<std::size_t>(latent + rope);
  switch (type) {
    case CacheType::kF32:
      std::memcpy(out, row, used);
      break;
    case CacheType::kBf16:
      used /= 2;
      StoreBf16(row, latent + rope, out);
      break;
    case CacheType::kFp8: {
      const Fp8Row at(latent);
      std::fill(out + latent, out + at.scales, static_cast<unsigned char>(0));
      StoreFp8(row, latent, out);
      StoreBf16(row + latent, rope, out + at.rope);
      used = at.rope + 2 * static_cast<std::size_t>(rope);
      break;
    }
  }
  std::fill(out + used, out + CacheRowBytes(type, latent, rope), static_cast<unsigned char>(0));
}

void LoadCacheRow(CacheType type, const void* from, int latent, int rope, float* row) {
  const unsigned char* in = static_cast<const unsigned char*>(from);
  switch (type) {
    case CacheType::kF32:
      std::memcpy(row, in, 4 * static_cast<std::size_t>(latent + rope));
      break;
    case CacheType::kBf16:
      LoadBf16(in, latent + rope, row);
      break;
    case CacheType::kFp8: {
      const Fp8Row at(latent);
      for (int b = 0; b < at.blocks; ++b) {
        float s;
        std::memcpy(&s, in + at.scales + 4 * static_cast<std::size_t>(b), 4);
        for (int i = b * kBlock; i < std::min((b + 1) * kBlock, latent); ++i)
          row[i] = DecodeE4m3(in[i]) * s;
      }
      LoadBf16(in + at.rope, rope, row + latent);
      break;
    }
  }
}

}  // namespace temper::kernels
