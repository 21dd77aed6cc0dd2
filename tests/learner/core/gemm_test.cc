#include "learner/core/gemm.h"

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
  int m, n, k;
};

constexpr int kPad = 3;  // rows further apart than they are long

/// Operands of one product and where it goes, NaN before.
struct Operands {
  Operands(Form form, const Case& c) : form(form), c(c) {
    lda = (form == Form::kColumns ? c.m : c.k) + kPad;
    ldb = (form == Form::kOutputs ? c.k : c.n) + kPad;
    a = Random(std::size_t(form == Form::kColumns ? c.k : c.m) * lda + 1, 1);
    b = Random(std::size_t(form == Form::kOutputs ? c.n : c.k) * ldb + 1, 2);
    out.assign(std::size_t(c.m) * (c.n + kPad), std::nanf(""));
  }
  Product product() {
    return {c.m, c.n, c.k, a.data(), lda, b.data(), ldb, out.data(), c.n + kPad};
  }
  double Want(int i, int j) const {
    double sum = 0;
    for (int l = 0; l < c.k; ++l) {
      sum += double(form == Form::kColumns ? a[l * lda + i] : a[i * lda + l]) *
             (form == Form::kOutputs ? b[j * ldb + l] : b[l * ldb + j]);
    }
    return sum;
  }
  void Check() const {
    for (int i = 0; i < c.m; ++i) {
      for (int j = 0; j < c.n; ++j) {
        ASSERT_NEAR(out[i * (c.n + kPad) + j], Want(i, j), 1e-5 * std::sqrt(c.k + 1.0))
            << i << ", " << j;
      }
      for (int j = c.n; j < c.n + kPad; ++j) ASSERT_TRUE(std::isnan(out[i * (c.n + kPad) + j]));
    }
  }

  Form form;
  Case c;
  std::int64_t lda, ldb;
  std::vector<float> a, b, out;
};

constexpr Form kForms[] = {Form::kRows, Form::kColumns, Form::kOutputs};
constexpr Case kCases[] = {{1, 1, 1},    {5, 32, 12},  {13, 33, 256}, {100, 72, 257},
                           {8, 65, 700}, {40, 75, 33}, {5, 6, 0},     {0, 4, 9}};

TEST(GemmTest, MultipliesEveryFormAndShape) {
  kernels::ThreadPool pool(2);
  for (Form form : kForms) {
    for (const Case& c : kCases) {
      Operands operands(form, c);
      Multiply(form, operands.product(), pool);
      operands.Check();
    }
  }
}

TEST(GemmTest, ManyProductsInOneCallAreThoseOfManyCalls) {
  kernels::ThreadPool pool(2);
  for (Form form : kForms) {
    std::vector<Operands> together, alone;
    for (const Case& c : kCases) together.emplace_back(form, c);
    alone = together;
    std::vector<Product> products;
    for (Operands& o : together) products.push_back(o.product());
    Multiply(form, products.data(), int(products.size()), pool);
    for (std::size_t i = 0; i < alone.size(); ++i) {
      Multiply(form, alone[i].product(), pool);
      together[i].Check();
      for (int r = 0; r < alone[i].c.m; ++r) {
        for (int j = 0; j < alone[i].c.n; ++j) {
          const std::size_t at = std::size_t(r) * (alone[i].c.n + kPad) + j;
          ASSERT_EQ(together[i].out[at], alone[i].out[at]);
        }
      }
    }
  }
}

TEST(GemmTest, HasTheSameBitsOnEveryVariantAndThreadCount) {
  const kernels::Isa before = kernels::ActiveIsa();
  const Case c{61, 83, 777};
  for (Form form : kForms) {
    std::vector<float> first;
    for (kernels::Isa isa : {kernels::Isa::kScalar, kernels::Isa::kAvx2, kernels::Isa::kAvx512}) {
      if (!kernels::Supports(isa)) continue;
      kernels::ForceIsa(isa);
      for (int threads : {1, 3}) {
        kernels::ThreadPool pool(threads);
        Operands operands(form, c);
        operands.out.assign(operands.out.size(), 0.0f);
        Multiply(form, operands.product(), pool);
        if (first.empty()) first = operands.out;
        EXPECT_EQ(operands.out, first);
      }
    }
  }
  kernels::ForceIsa(before);
}

}  // namespace
}  // namespace temper::learner
