#pragma once
// The numbers of goldens/fp8.txt, and the generator of inputs that its script shares.
#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace temper::kernels {

/// "name count" and count hexadecimal words, repeated.
inline std::map<std::string, std::vector<std::uint32_t>> ReadGoldens() {
  std::ifstream file(TEMPER_SOURCE_DIR "/tests/kernels/goldens/fp8.txt");
  std::map<std::string, std::vector<std::uint32_t>> all;
  std::string name;
  std::size_t count = 0;
  while (file >> name >> std::dec >> count) {
    std::vector<std::uint32_t>& words = all[name];
    words.resize(count);
    for (std::uint32_t& word : words) file >> std::hex >> word;
  }
  EXPECT_FALSE(all.empty()) << "goldens/fp8.txt is missing";
  return all;
}

/// Floats of random sign and mantissa with biased exponents low .. low + span - 1.
inline std::vector<float> GoldenFloats(std::uint32_t seed, std::size_t count, std::uint32_t low,
                                       std::uint32_t span) {
  std::vector<float> out(count);
  std::uint32_t state = seed;
  for (float& v : out) {
    state = state * 1664525u + 1013904223u;
    const std::uint32_t mantissa = state >> 9;
    state = state * 1664525u + 1013904223u;
    v = std::bit_cast<float>((state & 0x80000000u) | ((low + (state >> 8) % span) << 23) |
                             mantissa);
  }
  return out;
}

inline std::uint32_t Bits(float x) { return std::bit_cast<std::uint32_t>(x); }

}  // namespace temper::kernels
