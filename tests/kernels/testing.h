#pragma once
// What every kernel test needs: seeded floats, bitwise comparison, and a loop over the variants of
// this machine.
#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu.h"

namespace temper::kernels {

inline std::vector<Isa> Variants() {
  std::vector<Isa> found;
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (Supports(isa)) found.push_back(isa);
  }
  return found;
}

/// The variant of a scope; the one from before returns at its end.
class WithIsa {
 public:
  explicit WithIsa(Isa isa) : before_(ActiveIsa()) { ForceIsa(isa); }
  ~WithIsa() { ForceIsa(before_); }
  WithIsa(const WithIsa&) = delete;
  WithIsa& operator=(const WithIsa&) = delete;

 private:
  Isa before_;
};

inline std::vector<float> Normal(std::size_t n, std::uint64_t seed, float scale = 1.0f) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> x(n);
  for (float& v : x) v = normal(random);
  return x;
}

inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Equal as bits; says where the first difference is. Two NaNs count as equal (poison that nobody
/// wrote).
inline ::testing::AssertionResult SameBits(const std::vector<float>& a,
                                           const std::vector<float>& b) {
  if (a.size() != b.size()) return ::testing::AssertionFailure() << a.size() << " and " << b.size();
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] != a[i] && b[i] != b[i]) continue;
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) {
      return ::testing::AssertionFailure() << "entry " << i << " of " << a.size() << ": "
                                           << std::hexfloat << a[i] << " and " << b[i];
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace temper::kernels
