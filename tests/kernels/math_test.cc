#include "kernels/math.h"

#include <cmath>

#include "kernels/ops.h"
#include "kernels/variant.h"
#include "tests/kernels/testing.h"

namespace temper::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(ExpTest, StaysWithinTheWrittenError) {
  double worst = 0;
  for (double x = -87.3; x <= 88.7; x += 0.00037) {
    const float f = float(x);
    const double exact = std::exp(double(f));
    worst = std::max(worst, std::fabs(Exp(f) - exact) / exact);
  }
  for (float f = 1e-30f; f < 1.0f; f *= 1.01f) {
    for (float x : {f, -f}) {
      worst = std::max(worst, std::fabs(Exp(x) - std::exp(double(x))) / std::exp(double(x)));
    }
  }
  EXPECT_LE(worst, 2e-7);
  EXPECT_GT(worst, 1e-8);  // the comparison sees something
}

TEST(ExpTest, TheEdgesAreExact) {
  EXPECT_EQ(Exp(0.0f), 1.0f);
  EXPECT_EQ(Exp(-0.0f), 1.0f);
  EXPECT_EQ(Exp(std::nextafter(-87.33f, -100.0f)), 0.0f);
  EXPECT_GT(Exp(-87.33f), std::numeric_limits<float>::min());
  EXPECT_EQ(Exp(-kInfinity), 0.0f);
  EXPECT_FALSE(std::signbit(Exp(-kInfinity)));
  EXPECT_TRUE(std::isfinite(Exp(88.72f)));
  EXPECT_EQ(Exp(std::nextafter(88.72f, 100.0f)), kInfinity);
  EXPECT_EQ(Exp(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(Exp(kNan)));
  EXPECT_TRUE(std::isnan(Exp(-kNan)));
}

TEST(ExpTest, EveryVariantGivesTheSameBitsOverTheWholeRange) {
  // With lse 0 and temperature 1 the probabilities are Exp(x). Steps of 4801 through all bit
  // patterns.
  std::vector<float> x;
  for (std::uint64_t bits = 0; bits < 0x100000000ull; bits += 4801) {
    x.push_back(std::bit_cast<float>(std::uint32_t(bits)));
  }
  for (int i = 0; i < 200000; ++i) x.push_back(-90.0f + 180.0f * float(i) / 200000.0f);
  for (float edge : {-87.33f, 88.72f, 0.0f}) {
    for (float to : {-kInfinity, kInfinity}) {
      float v = edge;
      for (int i = 0; i < 20; ++i) x.push_back(v), v = std::nextafter(v, to);
    }
  }
  std::vector<float> want;
  for (float v : x) want.push_back(Exp(v));
  for (Isa isa : Variants()) {
    const WithIsa with(isa);
    std::vector<float> got(x.size());
    ActiveVariant().probabilities(x.data(), int(x.size()), 1.0f, 0.0f, nullptr, got.data());
    EXPECT_TRUE(SameBits(want, got)) << IsaName(isa);
  }
}

TEST(SigmoidTest, EveryVariantGivesTheSameBitsNearTheTruth) {
  std::vector<float> x = Normal(5003, 1, 20.0f);
  x.insert(x.end(), {0.0f, -0.0f, 100.0f, -100.0f, kInfinity, -kInfinity, kNan, 88.72f, -88.72f});
  std::vector<float> want;
  for (float v : x) {
    want.push_back(Sigmoid(v));
    if (!std::isfinite(v)) continue;
    EXPECT_NEAR(want.back(), 1.0 / (1.0 + std::exp(-double(v))), 2e-7) << v;
  }
  for (Isa isa : Variants()) {
    const WithIsa with(isa);
    for (std::size_t n : {x.size(), std::size_t{1}, std::size_t{17}}) {
      std::vector<float> got(n), some(want.begin(), want.begin() + n);
      ActiveVariant().sigmoid(x.data(), int(n), got.data());
      EXPECT_TRUE(SameBits(some, got)) << IsaName(isa);
    }
  }
}

TEST(LogTest, IsTheRoundedLogarithm) {
  for (float x = 1e-45f; x < 3e38f; x = x * 1.003f + 1e-45f) {
    const double exact = std::log(double(x));
    ASSERT_LE(std::fabs(Log(x) - exact), std::fabs(exact) * 0x1.001p-24) << x;
  }
  EXPECT_EQ(Log(1.0f), 0.0f);
  EXPECT_EQ(Log(0.0f), -kInfinity);
  EXPECT_EQ(Log(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(Log(-1.0f)));
  EXPECT_TRUE(std::isnan(Log(kNan)));
}

TEST(LogDoubleTest, AgreesWithLongDouble) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 200000; ++i) {
    // Any exponent, and every tenth close to one where the logarithm is small.
    double x = std::bit_cast<double>(random() % 0x7FF0000000000000ull);
    if (i % 10 == 0)
      x = 1.0 + std::ldexp(double(random() % 2000) - 1000.0, -int(random() % 52) - 10);
    if (!(x > 0)) continue;
    const long double exact = std::log((long double)x);
    ASSERT_LE(std::fabs((long double)LogDouble(x) - exact), std::fabs(exact) * 2.3e-16L) << x;
  }
}

TEST(PowTest, StaysWithinTheWrittenError) {
  std::mt19937_64 random(4);
  std::uniform_real_distribution<double> size(-30.0, 30.0), power(-20.0, 20.0);
  long double worst = 0;
  for (int i = 0; i < 200000; ++i) {
    const double base = std::exp(size(random)), exponent = power(random);
    const long double exact = std::pow((long double)base, (long double)exponent);
    if (exact < 1e-300L || exact > 1e300L) continue;
    worst = std::max(worst, std::fabs((long double)Pow(base, exponent) - exact) / exact);
  }
  EXPECT_LE(worst, 1e-14L);
  EXPECT_LE(worst, 1e-15L);  // what it really holds
  EXPECT_EQ(Pow(10000.0, 0.0), 1.0);
  EXPECT_EQ(Pow(2.0, 10.0), 1024.0);
  EXPECT_EQ(Pow(0.0, 2.0), 0.0);
  EXPECT_TRUE(std::isnan(Pow(-2.0, 0.5)));
  EXPECT_EQ(Pow(10.0, 400.0), std::numeric_limits<double>::infinity());
  EXPECT_EQ(Pow(10.0, -400.0), 0.0);
}

}  // namespace
}  // namespace temper::kernels
