// Row kernels on a grid of threads against the CPU's, bit for bit.
#include <string>

#include "kernels/bf16.h"
#include "kernels/cache_row.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/ops.h"
#include "tests/simt/testing.h"

namespace temper::kernels {
namespace {

using simt::Buffer;
using simt::UnderEveryOrder;

std::size_t Size(int m, std::int64_t ld) { return static_cast<std::size_t>(m * ld); }
int Blocks(int k) { return (k + kBlock - 1) / kBlock; }

/// Rows over many magnitudes, some entries zero: quantisation meets subnormal codes and ties.
std::vector<float> Mixed(std::size_t n, std::uint64_t seed) {
  std::vector<float> x = Normal(n, seed);
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = i % 11 == 0 ? 0.0f : std::ldexp(x[i], static_cast<int>(i % 13) - 9);
  }
  return x;
}

struct Codes {
  std::vector<std::uint8_t> codes;
  std::vector<float> scales;
};

Codes QuantizedByCpu(const std::vector<float>& x, int m, int k, std::int64_t ld,
                     ScaleRecipe recipe) {
  ThreadPool pool(1);
  std::vector<float> values(Size(m, k)), scales(Size(m, Blocks(k)));
  QuantizeActivations(x.data(), ld, m, k, recipe, values.data(), k, scales.data(), pool);
  Codes c{{}, scales};
  for (float v : values) c.codes.push_back(EncodeE4m3(v));
  return c;
}

/// Where a kernel puts its codes.
struct DeviceCodes {
  Buffer<std::uint8_t> codes;
  Buffer<float> scales;
  DeviceCodes(int m, int k) : codes(Size(m, k)), scales(Size(m, Blocks(k))) {}
  cuda::QuantizedOut Out(ScaleRecipe recipe) { return {codes.data(), scales.data(), recipe}; }
  void ExpectEqual(const Codes& expected) {
    EXPECT_EQ(codes.Values(), expected.codes);
    EXPECT_TRUE(SameBits(scales.Values(), expected.scales));
  }
};

struct Shape {
  int m, d;
};
class RowsTest : public ::testing::TestWithParam<Shape> {
 protected:
  ThreadPool pool_{1};
};
INSTANTIATE_TEST_SUITE_P(RaggedShapes, RowsTest,
                         ::testing::Values(Shape{1, 1}, Shape{3, 50}, Shape{2, 128}, Shape{5, 577},
                                           Shape{2, 2048}),
                         [](const auto& p) {
                           return std::to_string(p.param.m) + "x" + std::to_string(p.param.d);
                         });

TEST_P(RowsTest, NormalizesAsTheCpu) {
  const auto [m, d] = GetParam();
  const std::int64_t ld = d + 3;
  const std::vector<float> x = Normal(Size(m, ld), 1), add = Normal(Size(m, ld), 2),
                           weight = Normal(static_cast<std::size_t>(d), 3);
  std::vector<float> sum = x, y(Size(m, d));
  for (std::size_t i = 0; i < x.size(); ++i) sum[i] = x[i] + add[i];
  RmsNorm(sum.data(), ld, weight.data(), 1e-6f, m, d, y.data(), d, pool_);
  const Codes codes = QuantizedByCpu(y, m, d, d, ScaleRecipe::kPow2);
  UnderEveryOrder([&] {
    Buffer<float> dx(x), da(add), dw(weight), dy(Size(m, d));
    DeviceCodes out(m, d);
    cuda::RmsNormArgs a{dx.data(), da.data(), dx.data(), ld, dw.data(), 1e-6f, m, d};
    a.y = dy.data();
    a.ldy = d;
    a.out = out.Out(ScaleRecipe::kPow2);
    cuda::RmsNorm(a, nullptr);
    EXPECT_TRUE(SameBits(dy.Values(), y));
    out.ExpectEqual(codes);
    for (int r = 0; r < m; ++r) {
      for (int i = 0; i < d; ++i)
        ASSERT_EQ(dx.data()[r * ld + i], sum[static_cast<std::size_t>(r * ld + i)]);
    }
  });
}

TEST_P(RowsTest, RotatesAsTheCpu) {
  const auto [m, d] = GetParam();
  const int dim = (d + 1) / 2 * 2, heads = 3;
  const std::int64_t ldh = dim + 1, ldx = heads * ldh + 2;
  std::vector<float> x = Normal(Size(m, ldx), 1);
  std::vector<double> frequency(static_cast<std::size_t>(dim / 2), 0.37);
  std::vector<float> table(Size(40, dim));
  RopeTable(frequency.data(), dim, 40, 1.0, table.data());
  std::vector<std::int32_t> position;
  for (int r = 0; r < m; ++r) position.push_back((7 * r + 3) % 40);
  std::vector<float> expected = x;
  Rope(expected.data(), ldx, heads, ldh, dim, position.data(), m, table.data(), pool_);
  UnderEveryOrder([&] {
    Buffer<float> dx(x), dt(table);
    Buffer<std::int32_t> dp(position);
    cuda::Rope(dx.data(), ldx, heads, ldh, dim, dp.data(), m, dt.data(), nullptr);
    EXPECT_TRUE(SameBits(dx.Values(), expected));
  });
}

TEST_P(RowsTest, GatesAsTheCpu) {
  const auto [m, d] = GetParam();
  const std::int64_t ld = 2 * d + 1;
  std::vector<float> x = Normal(Size(m, ld), 1, 8.0f);
  x[0] = -100.0f;  // Exp overflows to infinity, the gate to zero
  std::vector<float> y(Size(m, d));
  SwiGlu(x.data(), ld, m, d, y.data(), d, pool_);
  for (ScaleRecipe recipe : {ScaleRecipe::kPow2, ScaleRecipe::kFp32}) {
    const Codes codes = QuantizedByCpu(y, m, d, d, recipe);
    UnderEveryOrder([&] {
      Buffer<float> dx(x), dy(Size(m, d));
      DeviceCodes out(m, d);
      cuda::SwiGlu(dx.data(), ld, m, d, dy.data(), d, out.Out(recipe), nullptr);
      EXPECT_TRUE(SameBits(dy.Values(), y));
      out.ExpectEqual(codes);
    });
  }
}

TEST_P(RowsTest, QuantizesAsTheCpu) {
  const auto [m, d] = GetParam();
  std::vector<float> x = Mixed(Size(m, d), 5);
  if (d > 300) {
    x[130] = kNan;
    x[260] = std::numeric_limits<float>::infinity();
  }
  for (ScaleRecipe recipe : {ScaleRecipe::kPow2, ScaleRecipe::kFp32}) {
    const Codes codes = QuantizedByCpu(x, m, d, d, recipe);
    UnderEveryOrder([&] {
      Buffer<float> dx(x);
      DeviceCodes out(m, d);
      cuda::Quantize(dx.data(), d, m, d, out.Out(recipe), nullptr);
      out.ExpectEqual(codes);
    });
  }
}

TEST_P(RowsTest, StoresCacheRowsAsTheCpu) {
  const auto [m, latent] = GetParam();
  const int rope = latent % 3 == 0 ? 6 : 64;
  const std::vector<float> x = Mixed(Size(m, latent + rope), 9);
  for (CacheType type : {CacheType::kF32, CacheType::kBf16, CacheType::kFp8}) {
    const std::int64_t bytes = static_cast<std::int64_t>(CacheRowBytes(type, latent, rope));
    const std::int64_t token = 2 * bytes;  // two layers; this is the second
    std::vector<std::int64_t> place;
    for (int r = 0; r < m; ++r) place.push_back((5 * r + 2) % 8);
    UnderEveryOrder([&] {
      Buffer<unsigned char> pool(Size(8, token));
      Buffer<float> dx(x);
      Buffer<std::int64_t> dp(place);
      cuda::StoreCache({pool.data(), token, bytes, 1, type, latent, rope}, dx.data(), latent + rope,
                       m, dp.data(), nullptr);
      std::vector<unsigned char> expected(Size(8, token), simt::kPoison);
      for (int r = 0; r < m; ++r) {
        StoreCacheRow(type, x.data() + r * (latent + rope), latent, rope,
                      expected.data() + place[static_cast<std::size_t>(r)] * token + bytes);
      }
      EXPECT_EQ(pool.Values(), expected);
    });
  }
}

TEST(EncodeTest, GivesTheCodeOfTheCpuForEveryKindOfFloat) {
  // Every exponent and the mantissas around each rounding step: one block of 128 at scale 1.
  std::vector<float> x;
  for (std::uint32_t high = 0x3A00; high <= 0x43E8; ++high) {
    for (std::uint32_t low : {0u, 1u, 0x7FFFu, 0x8000u, 0xFFFFu}) {
      x.push_back(std::bit_cast<float>(high << 16 | low));
      if (x.size() % kBlock == kBlock - 1) x.push_back(-448.0f);  // fixes the scale at 1
    }
  }
  while (x.size() % kBlock != 0) x.push_back(-448.0f);
  for (float& v : x) v = std::fabs(v) > 448.0f ? 447.9f : v;
  const int m = static_cast<int>(x.size()) / kBlock;
  DeviceCodes out(m, kBlock);
  Buffer<float> dx(x);
  cuda::Quantize(dx.data(), kBlock, m, kBlock, out.Out(ScaleRecipe::kPow2), nullptr);
  out.ExpectEqual(QuantizedByCpu(x, m, kBlock, kBlock, ScaleRecipe::kPow2));
  EXPECT_EQ(out.scales.Values(), std::vector<float>(static_cast<std::size_t>(m), 1.0f));
}

TEST(EncodeTest, RefusesShapesThatMeanNothing) {
  EXPECT_THROW(cuda::Rope(nullptr, 0, 1, 0, 3, nullptr, 1, nullptr, nullptr), std::logic_error);
  cuda::RmsNormArgs a{};
  a.m = 1;
  EXPECT_THROW(cuda::RmsNorm(a, nullptr), std::logic_error);
}

}  // namespace
}  // namespace temper::kernels
