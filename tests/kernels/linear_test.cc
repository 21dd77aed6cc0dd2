#include "kernels/linear.h"

#include <cmath>
#include <memory>
#include <stdexcept>

#include "tests/kernels/testing.h"

namespace temper::kernels {
namespace {

struct Shape {
  int m, n, k;
};

struct Layer {
  Layer(int n, int k, std::uint64_t seed)
      : w(Normal(std::size_t(n) * k, seed)), packed(PackedSize(n, k)) {
    PackLinear(w.data(), k, n, k, packed.data());
    weight = {packed.data(), n, k};
  }
  std::vector<float> w, packed;
  LinearWeight weight;
};

/// y [m, ldy] with NaN in the padding columns, which must stay.
std::vector<float> Forward(const LinearWeight& w, const std::vector<float>& x, std::int64_t ldx,
                           int m, std::int64_t ldy, ThreadPool& pool) {
  std::vector<float> y(std::size_t(m) * ldy + 1, kNan);
  Linear(w, x.data(), ldx, m, y.data(), ldy, pool);
  return y;
}

/// The written order, straight from the matrix that was never packed.
std::vector<float> Written(const Layer& layer, const std::vector<float>& x, std::int64_t ldx, int m,
                           std::int64_t ldy) {
  const int n = layer.weight.n, k = layer.weight.k;
  std::vector<float> out(std::size_t(m) * ldy + 1, kNan);
  for (int r = 0; r < m; ++r) {
    for (int i = 0; i < n; ++i) {
      float y = 0;
      for (int k0 = 0; k0 < k; k0 += 128) {
        float a = 0;
        for (int j = k0; j < std::min(k0 + 128, k); ++j) {
          a = std::fma(layer.w[std::size_t(i) * k + j], x[r * ldx + j], a);
        }
        y += a;
      }
      out[r * ldy + i] = y;
    }
  }
  return out;
}

TEST(LinearTest, EveryVariantAndThreadCountGivesTheWrittenOrderBitForBit) {
  std::vector<std::unique_ptr<ThreadPool>> pools;
  for (int threads : {1, 2, 3}) pools.push_back(std::make_unique<ThreadPool>(threads));
  const int rows[] = {0, 1, 2, 3, 4, 5, 6, 7, 11, 13, 25, 100, 197};
  const int outputs[] = {1, 15, 16, 17, 33, 64, 81, 130};
  const int inputs[] = {1, 7, 32, 127, 128, 129, 300};
  for (int n : outputs) {
    for (int k : inputs) {
      const Layer layer(n, k, n * 1000 + k);
      for (int m : rows) {
        const std::int64_t ldx = k + 3, ldy = n + 5;
        std::vector<float> x = Normal(std::size_t(m) * ldx + 1, m);
        for (int r = 0; r < m; ++r) {
          for (int j = k; j < ldx; ++j) x[r * ldx + j] = kNan;
        }
        const std::vector<float> want = Written(layer, x, ldx, m, ldy);
        for (Isa isa : Variants()) {
          const WithIsa with(isa);
          for (const auto& pool : pools) {
            ASSERT_TRUE(SameBits(want, Forward(layer.weight, x, ldx, m, ldy, *pool)))
                << IsaName(isa) << " m " << m << " n " << n << " k " << k << ", " << pool->threads()
                << " threads";
          }
        }
      }
    }
  }
}

TEST(LinearTest, LargeShapesAreCutIntoPartsWithoutChangingABit) {
  ThreadPool one(1), three(3);
  for (const Shape s :
       {Shape{1, 1000, 512}, Shape{2, 512, 300}, Shape{193, 264, 256}, Shape{50, 40, 2050}}) {
    const Layer layer(s.n, s.k, 5);
    const std::vector<float> x = Normal(std::size_t(s.m) * s.k, 6);
    const std::vector<float> want = Written(layer, x, s.k, s.m, s.n);
    for (Isa isa : Variants()) {
      const WithIsa with(isa);
      ASSERT_TRUE(SameBits(want, Forward(layer.weight, x, s.k, s.m, s.n, one))) << IsaName(isa);
      ASSERT_TRUE(SameBits(want, Forward(layer.weight, x, s.k, s.m, s.n, three))) << IsaName(isa);
    }
  }
}

TEST(LinearTest, ARowAloneIsTheRowInABatch) {
  ThreadPool pool(2);
  const Layer layer(72, 200, 1);
  const std::vector<float> x = Normal(100 * 200, 2);
  for (Isa isa : Variants()) {
    const WithIsa with(isa);
    const std::vector<float> batch = Forward(layer.weight, x, 200, 100, 72, pool);
    for (int r = 0; r < 100; ++r) {
      const std::vector<float> row(x.begin() + r * 200, x.begin() + (r + 1) * 200);
      std::vector<float> want(batch.begin() + r * 72, batch.begin() + (r + 1) * 72);
      want.push_back(kNan);
      ASSERT_TRUE(SameBits(want, Forward(layer.weight, row, 200, 1, 72, pool))) << "row " << r;
    }
  }
}

TEST(LinearTest, StaysWithinTheErrorBoundOfASumInDouble) {
  ThreadPool pool(1);
  const int n = 64, k = 1500, m = 8;
  const Layer layer(n, k, 3);
  const std::vector<float> x = Normal(std::size_t(m) * k, 4);
  const std::vector<float> y = Forward(layer.weight, x, k, m, n, pool);
  for (int r = 0; r < m; ++r) {
    for (int i = 0; i < n; ++i) {
      double exact = 0, size = 0;
      for (int j = 0; j < k; ++j) {
        const double term = double(layer.w[std::size_t(i) * k + j]) * x[r * k + j];
        exact += term;
        size += std::fabs(term);
      }
      EXPECT_LE(std::fabs(y[r * n + i] - exact), (128 + k / 128 + 2) * 0x1p-24 * size);
    }
  }
}

TEST(LinearTest, ASumThatUnderflowsToMinusZeroIsPlusZero) {
  const std::vector<float> w(16, 1e-30f), x(200, -1e-30f);
  ThreadPool pool(1);
  for (Isa isa : Variants()) {
    const WithIsa with(isa);
    for (int m : {1, 2, 7, 100}) {
      for (int n : {5, 16}) {
        std::vector<float> y = Forward({w.data(), n, 1}, x, 2, m, n, pool);
        y.pop_back();
        EXPECT_TRUE(SameBits(std::vector<float>(y.size(), 0.0f), y)) << IsaName(isa) << " m " << m;
      }
    }
  }
}

TEST(LinearTest, TheTransposedPackIsThePackOfTheTranspose) {
  const int n = 37, k = 50;
  const std::vector<float> w = Normal(n * k, 7);
  std::vector<float> transposed(n * k), a(PackedSize(n, k)), b(PackedSize(n, k));
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < k; ++j) transposed[j * n + i] = w[i * k + j];
  }
  PackLinear(w.data(), k, n, k, a.data());
  PackLinearTransposed(transposed.data(), n, n, k, b.data());
  EXPECT_EQ(a, b);
  EXPECT_EQ(a.size(), 48u * 50u);
  EXPECT_EQ(a[2 * 50 * 16 + 3 * 16 + 4], w[36 * 50 + 3]);
  EXPECT_EQ(a[2 * 50 * 16 + 3 * 16 + 5], 0.0f);  // an output past n
}

TEST(LinearTest, ManyItemsAreEachAsIfAlone) {
  std::vector<Layer> layers;
  std::vector<std::vector<float>> x, want, got;
  ThreadPool serial(1), pool(3);
  const int rows[] = {0, 1, 3, 40, 7, 0, 150};
  for (int i = 0; i < 7; ++i) {
    layers.emplace_back(20 + 31 * i, 90 + 40 * i, i);
    x.push_back(Normal(std::size_t(rows[i]) * layers[i].weight.k, 50 + i));
  }
  for (Isa isa : Variants()) {
    const WithIsa with(isa);
    want.clear(), got.clear();
    for (int i = 0; i < 7; ++i) {
      const LinearWeight& w = layers[i].weight;
      want.push_back(Forward(w, x[i], w.k, rows[i], w.n, serial));
      got.emplace_back(want.back().size(), kNan);
    }
    std::vector<LinearItem> items;
    for (int i = 0; i < 7; ++i) {
      const LinearWeight& w = layers[i].weight;
      items.push_back({w, x[i].data(), w.k, rows[i], got[i].data(), w.n});
    }
    LinearMany(items.data(), 7, pool);
    for (int i = 0; i < 7; ++i)
      EXPECT_TRUE(SameBits(want[i], got[i])) << IsaName(isa) << " item " << i;
  }
  LinearMany(nullptr, 0, pool);
}

TEST(LinearTest, RefusesShapesThatMeanNothing) {
  ThreadPool pool(1);
  EXPECT_THROW(PackedSize(16, 0), std::logic_error);
  EXPECT_THROW(PackedSize(-1, 16), std::logic_error);
  float x = 0, y = 0;
  EXPECT_THROW(Linear({&x, 1, 1}, &x, 1, -1, &y, 1, pool), std::logic_error);
}

}  // namespace
}  // namespace temper::kernels
