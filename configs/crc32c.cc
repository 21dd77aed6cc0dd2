#include "configs/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace temper::configs {
namespace {

std::array<std::uint32_t, 256> MakeTable() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t x = i;
    for (int bit = 0; bit < 8; ++bit) x = (x >> 1) ^ ((x & 1) ? 0x82f63b78u : 0u);
    table[i] = x;
  }
  return table;
}

std::uint32_t Portable(const unsigned char* p, std::size_t n, std::uint32_t x) {
  static const std::array<std::uint32_t, 256> table = MakeTable();
  for (; n > 0; --n, ++p) x = table[(x ^ *p) & 0xff] ^ (x >> 8);
  return x;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t Hardware(const unsigned char* p, std::size_t n,
                                                         std::uint32_t x) {
  std::uint64_t wide = x;
  for (; n >= 8; n -= 8, p += 8) {
    std::uint64_t chunk;
    std::memcpy(&chunk, p, 8);
    wide = _mm_crc32_u64(wide, chunk);
  }
  x = static_cast<std::uint32_t>(wide);
  for (; n > 0; --n, ++p) x = _mm_crc32_u8(x, *p);
  return x;
}
#endif

}  // namespace

std::uint32_t Crc32c(std::span<const std::byte> data, std::uint32_t crc) {
  const auto* p = reinterpret_cast<const unsigned char*>(data.data());
#if defined(__x86_64__)
  static const bool hardware = __builtin_cpu_supports("sse4.2");
  if (hardware) return ~Hardware(p, data.size(), ~crc);
#endif
  return ~Portable(p, data.size(), ~crc);
}

std::uint32_t Crc32c(std::string_view data, std::uint32_t crc) {
  return Crc32c(std::as_bytes(std::span(data.data(), data.size())), crc);
}

}  // namespace temper::configs
