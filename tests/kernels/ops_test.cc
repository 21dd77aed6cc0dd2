#include "kernels/ops.h"

#include <cmath>
#include <functional>
#include <stdexcept>

#include "kernels/math.h"
#include "tests/kernels/testing.h"

namespace temper::kernels {
namespace {

/// Runs `op` in the scalar variant on one thread, then everywhere else, and compares the bits.
std::vector<float> Everywhere(const std::function<std::vector<float>(ThreadPool&)>& op) {
  std::vector<float> want;
  {
    const WithIsa with(Isa::kScalar);
    ThreadPool pool(1);
    want = op(pool);
  }
  for (Isa isa : Variants()) {
    const WithIsa with(isa);
    for (int threads : {1, 2, 3}) {
      ThreadPool pool(threads);
      EXPECT_TRUE(SameBits(want, op(pool))) << IsaName(isa) << ", " << threads << " threads";
    }
  }
  return want;
}

std::vector<float> Padded(int m, int d, int ld, std::uint64_t seed) {
  std::vector<float> x = Normal(std::size_t(m) * ld, seed);
  for (int r = 0; r < m; ++r) {
    for (int c = d; c < ld; ++c) x[std::size_t(r) * ld + c] = kNan;
  }
  return x;
}

TEST(RmsNormTest, EveryVariantAgreesAndStaysNearTheTruth) {
  for (int d : {1, 2, 15, 16, 17, 96, 250, 1000}) {
    for (int m : {0, 1, 3, 700}) {
      const int ld = d + 3;
      const std::vector<float> x = Padded(m, d, ld, d), weight = Normal(d, 7);
      const std::vector<float> y = Everywhere([&](ThreadPool& pool) {
        std::vector<float> out(x.size(), kNan);
        RmsNorm(x.data(), ld, weight.data(), 1e-6f, m, d, out.data(), ld, pool);
        return out;
      });
      const std::vector<float> in_place = Everywhere([&](ThreadPool& pool) {
        std::vector<float> out = x;
        RmsNorm(out.data(), ld, weight.data(), 1e-6f, m, d, out.data(), ld, pool);
        return out;
      });
      EXPECT_TRUE(SameBits(y, in_place));
      for (int r = 0; r < m; r += 97) {
        double sum = 0;
        for (int c = 0; c < d; ++c) sum += double(x[r * ld + c]) * x[r * ld + c];
        for (int c = 0; c < d; ++c) {
          const double exact = x[r * ld + c] / std::sqrt(sum / d + 1e-6) * weight[c];
          ASSERT_NEAR(y[r * ld + c], exact, 4e-6 * std::fabs(exact) + 1e-30);
        }
      }
    }
  }
}

TEST(RmsNormTest, SumsInSixteenLanesAndTheFixedTree) {
  // 2^24 in lane 0 swallows a lone 1; the tree adds lane 8 to lane 0 first, so two ones meet only
  // if they are in lanes that join before lane 0 does.
  std::vector<float> x(16, 0.0f), one(16, 1.0f), y(16);
  x[0] = 4096.0f, x[8] = 1.0f, x[4] = 1.0f, x[12] = 1.0f;
  ThreadPool pool(1);
  for (Isa isa : Variants()) {
    const WithIsa with(isa);
    RmsNorm(x.data(), 16, one.data(), 0.0f, 1, 16, y.data(), 16, pool);
    const float sum = (0x1p24f + 1.0f) + (1.0f + 1.0f);  // 2^24, then + 2
    EXPECT_EQ(y[0], 4096.0f * (1.0f / std::sqrt(sum / 16.0f)));
  }
}

TEST(RopeTest, TurnsPairsByTheAngleOfTheirPosition) {
  for (int dim : {2, 8, 16, 22, 64}) {
    const int heads = 3, m = 40, ldh = dim + 5, ldx = heads * ldh + 2, positions = 500;
    std::vector<double> inv_freq;
    for (int i = 0; i < dim / 2; ++i) inv_freq.push_back(Pow(10000.0, -2.0 * i / dim));
    std::vector<float> table(std::size_t(positions) * dim);
    RopeTable(inv_freq.data(), dim, positions, 1.0, table.data());
    std::vector<std::int32_t> position;
    for (int r = 0; r < m; ++r) position.push_back(r * 97 % positions);
    const std::vector<float> x = Normal(std::size_t(m) * ldx, dim);
    const std::vector<float> y = Everywhere([&](ThreadPool& pool) {
      std::vector<float> out = x;
      Rope(out.data(), ldx, heads, ldh, dim, position.data(), m, table.data(), pool);
      return out;
    });
    for (int r = 0; r < m; ++r) {
      for (int c = 0; c < ldx; ++c) {
        const int h = c / ldh, i = c % ldh;
        const std::size_t at = std::size_t(r) * ldx + c;
        if (h >= heads || i >= dim) {
          ASSERT_EQ(y[at], x[at]) << "padding was touched";
        } else if (i % 2 == 0) {
          const long double angle = (long double)position[r] * inv_freq[i / 2];
          const long double cos = std::cos(angle), sin = std::sin(angle);
          ASSERT_NEAR(y[at], x[at] * cos - x[at + 1] * sin, 1e-6);
          ASSERT_NEAR(y[at + 1], x[at + 1] * cos + x[at] * sin, 1e-6);
        }
      }
    }
  }
  ThreadPool pool(1);
  float x[3] = {}, table[3] = {};
  const std::int32_t zero = 0;
  EXPECT_THROW(Rope(x, 3, 1, 3, 3, &zero, 1, table, pool), std::logic_error);
}

TEST(RopeTableTest, IsRoundedRightUpToTwoHundredThousandPositions) {
  const std::vector<double> inv_freq = {1.0, 0.7498942093324559, 0.01, 1.333521432163324e-05};
  const int positions = 200001, dim = 8;
  std::vector<float> table(std::size_t(positions) * dim);
  RopeTable(inv_freq.data(), dim, positions, 1.25, table.data());
  for (std::int64_t p = 0; p < positions; p += p < 3000 ? 1 : 61) {
    for (int i = 0; i < 4; ++i) {
      // The argument is the double product: what the table is defined by.
      const long double angle = double(p) * inv_freq[i];
      ASSERT_NEAR(table[p * dim + 2 * i], 1.25L * std::cos(angle), 6.1e-8) << p;
      ASSERT_NEAR(table[p * dim + 2 * i + 1], 1.25L * std::sin(angle), 6.1e-8) << p;
    }
  }
  EXPECT_EQ(table[0], 1.25f);
  EXPECT_EQ(table[1], 0.0f);
}

TEST(SwiGluTest, EveryVariantAgreesAndStaysNearTheTruth) {
  for (int d : {1, 16, 31, 192}) {
    const int m = 300, ld = 2 * d + 3, ldy = d + 1;
    std::vector<float> x = Padded(m, 2 * d, ld, d);
    for (float& v : x) v *= 6.0f;
    const std::vector<float> y = Everywhere([&](ThreadPool& pool) {
      std::vector<float> out(std::size_t(m) * ldy, kNan);
      SwiGlu(x.data(), ld, m, d, out.data(), ldy, pool);
      return out;
    });
    for (int r = 0; r < m; ++r) {
      for (int c = 0; c < d; ++c) {
        const double g = x[r * ld + c], u = x[r * ld + d + c];
        ASSERT_NEAR(y[r * ldy + c], g / (1 + std::exp(-g)) * u, 1e-6 * std::fabs(g * u));
      }
    }
  }
}

TEST(AddTest, AddsAlsoInPlace) {
  for (int n : {0, 1, 17, 200000}) {
    const std::vector<float> a = Normal(n, 1), b = Normal(n, 2);
    const std::vector<float> y = Everywhere([&](ThreadPool& pool) {
      std::vector<float> out = a;
      Add(out.data(), b.data(), n, out.data(), pool);
      return out;
    });
    for (int i = 0; i < n; ++i) ASSERT_EQ(y[i], a[i] + b[i]);
  }
}

TEST(CombineExpertsTest, SumsInAscendingOrderThenSharedThenResidual) {
  const int m = 90, d = 131, k = 3, slots = m * k, lde = d + 2;
  const std::vector<float> expert = Padded(slots, d, lde, 1), weight = Normal(m * k, 2);
  const std::vector<float> shared = Normal(m * d, 3), residual = Normal(m * d, 4);
  std::vector<std::int32_t> slot;
  for (int i = 0; i < m * k; ++i) slot.push_back(i * 77 % slots);
  for (const bool with_shared : {true, false}) {
    const std::vector<float> y = Everywhere([&](ThreadPool& pool) {
      std::vector<float> out = residual;  // y may alias residual
      CombineExperts(expert.data(), lde, slot.data(), weight.data(), k,
                     with_shared ? shared.data() : nullptr, d, out.data(), d, m, d, out.data(), d,
                     pool);
      return out;
    });
    for (int r = 0; r < m; ++r) {
      for (int c = 0; c < d; ++c) {
        float sum = 0;
        for (int j = 0; j < k; ++j) {
          sum = std::fma(weight[r * k + j], expert[std::size_t(slot[r * k + j]) * lde + c], sum);
        }
        if (with_shared) sum += shared[r * d + c];
        ASSERT_EQ(y[r * d + c], residual[r * d + c] + sum);
      }
    }
  }
}

}  // namespace
}  // namespace temper::kernels
