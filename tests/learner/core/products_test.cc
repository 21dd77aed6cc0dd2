#include "learner/core/products.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/cpu.h"

namespace temper::learner {
namespace {

std::vector<float> Random(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& x : values) x = normal(rng);
  return values;
}

struct Case {
  std::int64_t m;
  int n, k;
};

class ProductsTest : public testing::TestWithParam<Case> {};

TEST_P(ProductsTest, GivesBothGradientsOfALinearLayer) {
  const auto [m, n, k] = GetParam();
  const int pad = 3;  // rows further apart than they are long
  const std::vector<float> g = Random(m * (n + pad), 1), x = Random(m * (k + pad), 2),
                           w = Random(std::size_t(n) * k, 3);
  std::vector<float> dx(m * k, 7), dw(std::size_t(n) * k, 7);
  kernels::ThreadPool pool(2);
  LinearBackward layer{m, n, k, g.data(), n + pad};
  layer.x = x.data();
  layer.ldx = k + pad;
  layer.w = w.data();
  layer.dx = dx.data();
  layer.lddx = k;
  layer.dw = dw.data();
  InputGradients({&layer, 1}, pool);
  WeightGradients({&layer, 1}, pool);
  for (std::int64_t t = 0; t < m; ++t) {
    for (int j = 0; j < k; ++j) {
      double sum = 0;
      for (int i = 0; i < n; ++i) sum += double(g[t * (n + pad) + i]) * w[i * k + j];
      ASSERT_NEAR(dx[t * k + j], sum, 1e-5 * std::sqrt(double(n)) + 1e-6) << t << ", " << j;
    }
  }
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < k; ++j) {
      double sum = 0;
      for (std::int64_t t = 0; t < m; ++t)
        sum += double(g[t * (n + pad) + i]) * x[t * (k + pad) + j];
      ASSERT_NEAR(dw[i * k + j], sum, 1e-5 * std::sqrt(double(m) + 1) + 1e-6) << i << ", " << j;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, ProductsTest,
                         testing::Values(Case{1, 1, 1}, Case{5, 12, 32}, Case{256, 13, 33},
                                         Case{257, 100, 72}, Case{700, 8, 65}, Case{0, 5, 6}));

TEST(WeightGradientsTest, HasTheSameBitsOnEveryVariantAndThreadCount) {
  const std::int64_t m = 777;
  const int n = 61, k = 83;
  const std::vector<float> g = Random(m * n, 4), x = Random(m * k, 5);
  const kernels::Isa before = kernels::ActiveIsa();
  std::vector<float> first;
  for (kernels::Isa isa : {kernels::Isa::kScalar, kernels::Isa::kAvx2, kernels::Isa::kAvx512}) {
    if (!kernels::Supports(isa)) continue;
    kernels::ForceIsa(isa);
    for (int threads : {1, 3}) {
      kernels::ThreadPool pool(threads);
      std::vector<float> dw(std::size_t(n) * k);
      LinearBackward layer{m, n, k, g.data(), n, x.data(), k};
      layer.dw = dw.data();
      WeightGradients({&layer, 1}, pool);
      if (first.empty()) first = dw;
      EXPECT_EQ(dw, first);
    }
  }
  kernels::ForceIsa(before);
}

}  // namespace
}  // namespace temper::learner
