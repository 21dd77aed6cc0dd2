// The counter-based stream: a token's uniform is a function of who it is, not of when it is drawn.
#include "kernels/sampling.h"

namespace temper::kernels {

std::array<std::uint32_t, 4> Philox(std::array<std::uint32_t, 4> c,
                                    std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * c[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<std::uint32_t>(b >> 32) ^ c[1] ^ key[0], static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ c[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return c;
}

float SampleUniform(std::uint64_t seed, std::uint64_t group, std::uint32_t sample,
                    std::uint32_t position) {
  const std::array<std::uint32_t, 4> x =
      Philox({position, sample, static_cast<std::uint32_t>(group),
              static_cast<std::uint32_t>(group >> 32)},
             {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  return static_cast<float>(x[0] >> 8) * 0x1p-24f;
}

}  // namespace temper::kernels
