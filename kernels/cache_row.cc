#include "kernels/cache_row.h"

#include <algorithm>
#include <cstring>

#include "kernels/bf16.h"
#include "kernels/fp8.h"
#include "kernels/fp8_table.h"
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

std::uint16_t* Halves(unsigned char* p) { return reinterpret_cast<std::uint16_t*>(p); }
const std::uint16_t* Halves(const unsigned char* p) {
  return reinterpret_cast<const std::uint16_t*>(p);
}

void StoreFp8(const float* row, int latent, unsigned char* to) {
  const Fp8Row at(latent);
  for (int b = 0; b < at.blocks; ++b) {
    const int first = b * kBlock, n = std::min(kBlock, latent - first);
    const float s = BlockScale(LargestMagnitude(row + first, n, 0), ScaleRecipe::kPow2);
    std::memcpy(to + at.scales + 4 * static_cast<std::size_t>(b), &s, 4);
    EncodeE4m3(row + first, n, s, to + first);
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
      EncodeBf16(row, latent + rope, Halves(out));
      break;
    case CacheType::kFp8: {
      const Fp8Row at(latent);
      std::fill(out + latent, out + at.scales, static_cast<unsigned char>(0));
      StoreFp8(row, latent, out);
      EncodeBf16(row + latent, rope, Halves(out + at.rope));
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
      DecodeBf16(Halves(in), latent + rope, row);
      break;
    case CacheType::kFp8: {
      const Fp8Row at(latent);
      for (int b = 0; b < at.blocks; ++b) {
        float s;
        std::memcpy(&s, in + at.scales + 4 * static_cast<std::size_t>(b), 4);
        for (int i = b * kBlock; i < std::min((b + 1) * kBlock, latent); ++i)
          row[i] = kShiftedE4m3.value[in[i]] * (s * kFp8Shift);
      }
      DecodeBf16(Halves(in + at.rope), rope, row + latent);
      break;
    }
  }
}

}  // namespace temper::kernels
