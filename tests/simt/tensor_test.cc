// The tensor cores' kernels over their real fragments: within the header's bound, the same bits in
// every order of threads and for a row in any company.
#include <cmath>

#include "kernels/attention.h"
#include "kernels/cuda/cuda_kernels.h"
#include "tests/simt/paged.h"
#include "tests/simt/testing.h"

namespace temper::kernels {
namespace {

using simt::Buffer;
using simt::Paged;
using simt::UnderEveryOrder;

struct Shape {
  int m, n, k;
};
class Fp8GemmTest : public ::testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    const auto [m, n, k] = GetParam();
    const std::size_t blocks = static_cast<std::size_t>((k + kBlock - 1) / kBlock);
    const std::vector<float> w = Normal(static_cast<std::size_t>(n * k), 1, 0.05f);
    std::vector<float> x = Normal(static_cast<std::size_t>(m * k), 2);
    w_.resize(w.size());
    w_scale_.resize(static_cast<std::size_t>((n + kBlock - 1) / kBlock) * blocks);
    QuantizeWeight(w.data(), k, n, k, ScaleRecipe::kFp32, w_.data(), k, w_scale_.data(), pool_);
    x_scale_.resize(static_cast<std::size_t>(m) * blocks);
    QuantizeActivations(x.data(), k, m, k, ScaleRecipe::kFp32, x.data(), k, x_scale_.data(), pool_);
    for (float v : x) x_.push_back(EncodeE4m3(v));
  }

  /// Rows [first, first + m) of y.
  std::vector<float> Run(int first, int m) const {
    const auto [all, n, k] = GetParam();
    const std::int64_t blocks = (k + kBlock - 1) / kBlock;
    const auto codes = x_.begin() + std::int64_t{first} * k;
    const auto scales = x_scale_.begin() + first * blocks;
    Buffer<std::uint8_t> dw(w_), dx(std::vector<std::uint8_t>(codes, codes + std::int64_t{m} * k));
    Buffer<float> dws(w_scale_), dxs(std::vector<float>(scales, scales + m * blocks)),
        dy(static_cast<std::size_t>(m * n));
    cuda::Fp8Gemm(dw.data(), dws.data(), dx.data(), dxs.data(), m, n, k, dy.data(), n, nullptr);
    return dy.Values();
  }

  ThreadPool pool_{1};
  std::vector<std::uint8_t> w_, x_;
  std::vector<float> w_scale_, x_scale_;
};
INSTANTIATE_TEST_SUITE_P(RaggedShapes, Fp8GemmTest,
                         ::testing::Values(Shape{1, 16, 64}, Shape{3, 37, 320}, Shape{16, 20, 1024},
                                           Shape{19, 150, 1216}, Shape{70, 33, 192}));

TEST_P(Fp8GemmTest, StaysInsideItsBound) {
  const auto [m, n, k] = GetParam();
  const std::vector<float> y = Run(0, m);
  UnderEveryOrder([&] { EXPECT_TRUE(SameBits(Run(0, m), y)); });
  const int blocks = (k + kBlock - 1) / kBlock;
  double worst = 0;
  for (int r = 0; r < m; ++r) {
    for (int i = 0; i < n; ++i) {
      double sum = 0, size = 0;
      for (int j = 0; j < k; ++j) {
        const double term =
            double{DecodeE4m3(w_[static_cast<std::size_t>(i * k + j)])} *
            double{DecodeE4m3(x_[static_cast<std::size_t>(r * k + j)])} *
            double{w_scale_[static_cast<std::size_t>(i / kBlock * blocks + j / kBlock)]} *
            double{x_scale_[static_cast<std::size_t>(r * blocks + j / kBlock)]};
        sum += term;
        size += std::fabs(term);
      }
      const double error = std::fabs(double{y[static_cast<std::size_t>(r * n + i)]} - sum);
      worst = std::max(worst, error / size);
    }
  }
#ifdef TEMPER_ON_DEVICE
  EXPECT_LE(worst, 0x1p-11);
#else
  // The machine cuts sums at 24 bits, where a device may cut at 13.
  EXPECT_LE(worst, 0x1p-18);
#endif
  EXPECT_GT(worst, 0.0);
}

TEST_P(Fp8GemmTest, GivesARowTheSameBitsAloneAndInAnyCompany) {
  const auto [m, n, k] = GetParam();
  const std::vector<float> y = Run(0, m);
  for (int r = 0; r < m; r += 1 + m / 4) {
    const std::vector<float> alone = Run(r, 1);
    EXPECT_TRUE(SameBits(alone, {y.begin() + r * n, y.begin() + (r + 1) * n})) << "row " << r;
  }
}

TEST(Fp8GemmArgsTest, RefusesInputsThatAreNoMultipleOf64) {
  EXPECT_THROW(cuda::Fp8Gemm(nullptr, nullptr, nullptr, nullptr, 1, 16, 100, nullptr, 16, nullptr),
               std::logic_error);
}

struct Heads {
  int heads, page;
  std::vector<int> counts;
};
class TensorAttentionTest : public ::testing::TestWithParam<Heads> {
 protected:
  static constexpr int kLatent = 512, kRope = 64;
  static constexpr float kScale = 0.05f;

  static std::vector<float> Queries(std::size_t rows, int heads) {
    return Normal(rows * static_cast<std::size_t>(heads * (kLatent + kRope)), 3, 0.5f);
  }

  std::vector<float> Run(const Paged& paged, const std::vector<float>& q, std::size_t rows,
                         int splits) const {
    const int heads = GetParam().heads;
    Buffer<float> dq(q), o(rows * static_cast<std::size_t>(heads * kLatent));
    Buffer<float> scratch(
        static_cast<std::size_t>(cuda::AttentionScratch(static_cast<int>(rows), heads, splits)));
    cuda::MlaAttentionTensor(paged.Args(dq.data(), heads, kScale, o.data()), splits, scratch.data(),
                             nullptr);
    return o.Values();
  }
};
INSTANTIATE_TEST_SUITE_P(RaggedShapes, TensorAttentionTest,
                         ::testing::Values(Heads{16, 64, {1, 33}}, Heads{5, 7, {300, 255, 512}},
                                           Heads{20, 16, {31, 270}}, Heads{70, 64, {97}}));

TEST_P(TensorAttentionTest, StaysInsideItsBound) {
  const Heads& s = GetParam();
  const std::size_t rows = s.counts.size();
  const std::vector<float> q = Queries(rows, s.heads);
  for (CacheType type : {CacheType::kBf16, CacheType::kFp8}) {
    const Paged paged(type, kLatent, kRope, s.page, s.counts);
    std::vector<float> exact(rows * static_cast<std::size_t>(s.heads * kLatent));
    const auto keys = paged.Rows();
    ThreadPool pool(1);
    MlaAttention(q.data(), keys.data(), static_cast<int>(rows), s.heads, kLatent, kRope, kScale,
                 type, paged.offset(), exact.data(), pool);
    const std::vector<float> o = Run(paged, q, rows, 2);
    UnderEveryOrder([&] { EXPECT_TRUE(SameBits(Run(paged, q, rows, 2), o)); });
    float worst = 0, largest = 0;
    for (std::size_t i = 0; i < o.size(); ++i) {
      worst = std::max(worst, std::fabs(o[i] - exact[i]));
      largest = std::max(largest, std::fabs(exact[i]));
    }
    EXPECT_LE(worst, 0x1p-6f * 5.0f);  // keys are below 5
    EXPECT_LE(worst, 0.02f * largest) << "far from what rounding gives";
  }
}

TEST_P(TensorAttentionTest, GivesPrefillAndAnyNumberOfSplitsTheBitsOfDecode) {
  const Heads& s = GetParam();
  const std::size_t rows = s.counts.size();
  const std::vector<float> q = Queries(rows, s.heads);
  const Paged paged(CacheType::kFp8, kLatent, kRope, s.page, s.counts);
  const std::vector<float> o = Run(paged, q, rows, 2);
  EXPECT_TRUE(SameBits(Run(paged, q, rows, 5), o));
  UnderEveryOrder([&] { EXPECT_TRUE(SameBits(Run(paged, q, rows, 0), o)); });
}

TEST_P(TensorAttentionTest, GivesARowTheSameBitsAlone) {
  const Heads& s = GetParam();
  const std::size_t rows = s.counts.size(), each = static_cast<std::size_t>(s.heads * kLatent);
  const std::vector<float> q = Queries(rows, s.heads);
  const Paged paged(CacheType::kBf16, kLatent, kRope, s.page, s.counts);
  const std::vector<float> o = Run(paged, q, rows, 2);
  // Row 0 alone: the same pages, one row of the call.
  Buffer<float> dq(q), alone(each),
      scratch(static_cast<std::size_t>(cuda::AttentionScratch(1, s.heads, 2)));
  cuda::AttentionArgs args = paged.Args(dq.data(), s.heads, kScale, alone.data());
  args.m = 1;
  cuda::MlaAttentionTensor(args, 2, scratch.data(), nullptr);
  EXPECT_TRUE(SameBits(alone.Values(), {o.begin(), o.begin() + static_cast<std::ptrdiff_t>(each)}));
}

TEST(TensorAttentionArgsTest, RefusesShapesThatItDoesNotHold) {
  cuda::AttentionArgs a{};
  a.cache = {nullptr, 1152, 0, 64, CacheType::kBf16, 256, 64};
  a.m = a.heads = 1;
  EXPECT_THROW(cuda::MlaAttentionTensor(a, 1, nullptr, nullptr), std::logic_error);
  a.cache = {nullptr, 2304, 0, 64, CacheType::kF32, 512, 64};
  EXPECT_THROW(cuda::MlaAttentionTensor(a, 1, nullptr, nullptr), std::logic_error);
}

}  // namespace
}  // namespace temper::kernels
