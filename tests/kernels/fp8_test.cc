#include "kernels/fp8.h"

#include <cmath>

#include "tests/kernels/goldens.h"
#include "tests/kernels/testing.h"

namespace temper::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Case {
  std::string name;
  int n, k;
  std::vector<float> values;
};

std::vector<Case> Matrices() {
  return {{"x", 7, 300, GoldenFloats(1, 7 * 300, 100, 20)},
          {"tiny", 2, 130, GoldenFloats(3, 2 * 130, 80, 12)},
          {"zero", 1, 128, std::vector<float>(128)}};
}

TEST(Fp8Test, All256CodesDecodeAsTorchDecodesThem) {
  const auto golden = ReadGoldens();
  int nans = 0;
  for (unsigned code = 0; code < 256; ++code) {
    const float value = DecodeE4m3(static_cast<std::uint8_t>(code));
    if ((code & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(value)) << code;
      ++nans;
    } else {
      EXPECT_EQ(Bits(value), golden.at("values")[code]) << code;
      EXPECT_EQ(EncodeE4m3(value), code);
    }
  }
  EXPECT_EQ(nans, 2);
}

TEST(Fp8Test, EncodingRoundsTiesToEvenAndClampsAsTorchDoes) {
  const auto golden = ReadGoldens();
  const std::vector<std::uint32_t>&in = golden.at("encode_in"), &out = golden.at("encode_out");
  ASSERT_GT(in.size(), 1000u);
  for (std::size_t i = 0; i < in.size(); ++i) {
    EXPECT_EQ(EncodeE4m3(std::bit_cast<float>(in[i])), out[i]) << std::bit_cast<float>(in[i]);
  }
  EXPECT_EQ(EncodeE4m3(kInf), 0x7E);
  EXPECT_EQ(EncodeE4m3(-kInf), 0xFE);
  EXPECT_EQ(EncodeE4m3(kNan) & 0x7F, 0x7F);
}

TEST(Fp8Test, ActivationsAreQuantisedAsTorchDoesByBothRecipes) {
  const auto golden = ReadGoldens();
  for (const Case& c : Matrices()) {
    const int blocks = (c.k + 127) / 128, ld = c.k + 5;
    for (ScaleRecipe recipe : {ScaleRecipe::kFp32, ScaleRecipe::kPow2}) {
      const std::string name = c.name + (recipe == ScaleRecipe::kPow2 ? "_pow2" : "_fp32");
      for (int threads : {1, 3}) {
        ThreadPool pool(threads);
        std::vector<float> values(std::size_t(c.n) * ld, kNan), scales(c.n * blocks);
        QuantizeActivations(c.values.data(), c.k, c.n, c.k, recipe, values.data(), ld,
                            scales.data(), pool);
        for (std::size_t i = 0; i < scales.size(); ++i)
          ASSERT_EQ(Bits(scales[i]), golden.at(name + "_scales")[i]) << name << " " << i;
        for (int r = 0; r < c.n; ++r) {
          for (int j = 0; j < c.k; ++j) {
            const std::uint32_t code = golden.at(name + "_codes")[std::size_t(r) * c.k + j];
            ASSERT_EQ(Bits(values[std::size_t(r) * ld + j]), Bits(DecodeE4m3(std::uint8_t(code))))
                << name << " [" << r << ", " << j << "]";
          }
          EXPECT_TRUE(std::isnan(values[std::size_t(r) * ld + c.k]));
        }
      }
    }
  }
}

TEST(Fp8Test, WeightsWithRaggedEdgesAreQuantisedAsTorchDoes) {
  const auto golden = ReadGoldens();
  const int n = 150, k = 140, ldc = 145;
  const std::vector<float> w = GoldenFloats(2, std::size_t(n) * k, 110, 14);
  for (ScaleRecipe recipe : {ScaleRecipe::kFp32, ScaleRecipe::kPow2}) {
    const std::string name = recipe == ScaleRecipe::kPow2 ? "w_pow2" : "w_fp32";
    ThreadPool pool(2);
    std::vector<std::uint8_t> codes(std::size_t(n) * ldc, 0xEE);
    std::vector<float> scales(4), back(std::size_t(n) * k);
    QuantizeWeight(w.data(), k, n, k, recipe, codes.data(), ldc, scales.data(), pool);
    EXPECT_EQ(CheckFp8Weight(codes.data(), ldc, n, k, scales.data()), "");
    DequantizeWeight(codes.data(), ldc, n, k, scales.data(), back.data(), k, pool);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(Bits(scales[i]), golden.at(name + "_scales")[i]);
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < k; ++j) {
        const std::uint8_t code = codes[std::size_t(i) * ldc + j];
        const float scale = scales[i / 128 * 2 + j / 128];
        ASSERT_EQ(code, golden.at(name + "_codes")[std::size_t(i) * k + j]) << i << " " << j;
        ASSERT_EQ(back[std::size_t(i) * k + j], DecodeE4m3(code) * scale);
      }
      EXPECT_EQ(codes[std::size_t(i) * ldc + k], 0xEE);
    }
  }
}

TEST(Fp8Test, APowerOfTwoScaleIsTheSmallestThatFits) {
  for (float amax : {448.0f, 448.00003f, 447.99997f, 1.0f, 1e-30f, 0.0f, 3e38f, 7e-11f}) {
    const float s = BlockScale(amax, ScaleRecipe::kPow2), q = std::fmax(amax, 1e-12f) / 448.0f;
    int exponent = 0;
    EXPECT_EQ(std::frexp(s, &exponent), 0.5f) << amax;
    EXPECT_GE(s, q) << amax;
    EXPECT_LT(s / 2, q) << amax;
    EXPECT_EQ(BlockScale(amax, ScaleRecipe::kFp32), q);
  }
}

TEST(Fp8Test, ANanMakesItsBlockVisiblyNanAndNoOther) {
  ThreadPool pool(1);
  std::vector<float> x = Normal(256, 3), values(256), scales(2);
  x[200] = kNan;
  QuantizeActivations(x.data(), 256, 1, 256, ScaleRecipe::kPow2, values.data(), 256, scales.data(),
                      pool);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(std::isnan(values[i]), i >= 128) << i;
}

TEST(Fp8Test, CodesAndScalesThatCannotBeWeightsAreRefusedWithAReason) {
  const int n = 130, k = 200;
  const std::vector<std::uint8_t> sound(std::size_t(n) * k, 0x7E);
  const std::vector<float> scales = {1.0f, 0.5f, 2.0f, 1e30f};
  EXPECT_EQ(CheckFp8Weight(sound.data(), k, n, k, scales.data()), "");
  for (std::uint8_t nan : {0x7F, 0xFF}) {
    std::vector<std::uint8_t> codes = sound;
    codes[129 * k + 199] = nan;
    EXPECT_EQ(CheckFp8Weight(codes.data(), k, n, k, scales.data()),
              "entry [129, 199] is a NaN code");
    // One column less, and the code lies outside.
    EXPECT_EQ(CheckFp8Weight(codes.data(), k, n, k - 1, scales.data()), "");
  }
  for (float bad : {0.0f, -0.0f, -1.0f, kNan, kInf, -kInf}) {
    std::vector<float> some = scales;
    some[3] = bad;
    const std::string reason = CheckFp8Weight(sound.data(), k, n, k, some.data());
    EXPECT_NE(reason.find("scale [1, 1]"), std::string::npos) << reason;
    EXPECT_NE(reason.find("positive and finite"), std::string::npos) << reason;
  }
  std::vector<float> large = scales;
  large[1] = 1e36f;
  EXPECT_NE(CheckFp8Weight(sound.data(), k, n, k, large.data()).find("no finite float"),
            std::string::npos);
}

}  // namespace
}  // namespace temper::kernels
