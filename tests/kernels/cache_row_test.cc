#include "kernels/cache_row.h"

#include <cmath>
#include <cstring>

#include "kernels/bf16.h"
#include "kernels/fp8.h"
#include "tests/kernels/goldens.h"
#include "tests/kernels/testing.h"

namespace temper::kernels {
namespace {

TEST(Bf16Test, RoundsToNearestEvenAsTorchDoes) {
  const auto golden = ReadGoldens();
  std::vector<float> x, back;
  for (std::uint32_t bits : golden.at("bf16_in")) x.push_back(std::bit_cast<float>(bits));
  for (float tie : {0x1.01p0f, 0x1.03p0f, -0x1.01p0f}) x.push_back(tie);
  std::vector<std::uint32_t> want = golden.at("bf16_out");
  want.insert(want.end(), {0x3F80u, 0x3F82u, 0xBF80u});
  std::vector<std::uint16_t> codes(x.size());
  EncodeBf16(x.data(), std::int64_t(x.size()), codes.data());
  back.resize(x.size());
  DecodeBf16(codes.data(), std::int64_t(x.size()), back.data());
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(codes[i], want[i]) << std::hexfloat << x[i];
    ASSERT_EQ(EncodeBf16(x[i]), want[i]);
    ASSERT_EQ(Bits(back[i]), want[i] << 16);
    ASSERT_EQ(Bits(DecodeBf16(codes[i])), want[i] << 16);
  }
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    std::vector<float> rounded = x;
    RoundBf16(rounded.data(), std::int64_t(rounded.size()), pool);
    EXPECT_TRUE(SameBits(back, rounded));
  }
  EXPECT_EQ(EncodeBf16(kNan), 0x7FC0);
  EXPECT_EQ(EncodeBf16(-kNan), 0x7FC0);
}

TEST(CacheRowTest, Fp8RowsHaveTheBytesOfThePublishedRecipe) {
  EXPECT_EQ(CacheRowBytes(CacheType::kFp8, 512, 64), 656u);
  EXPECT_EQ(CacheRowBytes(CacheType::kBf16, 512, 64), 1152u);
  EXPECT_EQ(CacheRowBytes(CacheType::kF32, 512, 64), 2304u);
  EXPECT_EQ(CacheRowBytes(CacheType::kFp8, 7, 2), 16u);   // 7 codes, 1, a scale, two BF16
  EXPECT_EQ(CacheRowBytes(CacheType::kBf16, 7, 2), 32u);  // 18, padded

  const std::vector<float> row = Normal(576, 1);
  std::vector<unsigned char> bytes(656);
  StoreCacheRow(CacheType::kFp8, row.data(), 512, 64, bytes.data());
  for (int i = 0; i < 576; ++i) {
    if (i < 512) {
      float s = 0;
      std::memcpy(&s, &bytes[512 + i / 128 * 4], 4);
      EXPECT_EQ(bytes[i], EncodeE4m3(row[i] / s));
      float most = 0;
      for (int j = i / 128 * 128; j < i / 128 * 128 + 128; ++j)
        most = std::fmax(most, std::fabs(row[j]));
      EXPECT_EQ(s, BlockScale(most, ScaleRecipe::kPow2));
    } else {
      std::uint16_t code = 0;
      std::memcpy(&code, &bytes[528 + (i - 512) * 2], 2);
      EXPECT_EQ(code, EncodeBf16(row[i]));
    }
  }
}

TEST(CacheRowTest, AStoredRowComesBackAsItsRoundingAndStoringThatChangesNothing) {
  for (int latent : {1, 7, 32, 128, 129, 300, 512}) {
    for (int rope : {0, 2, 10, 64}) {
      const int dim = latent + rope;
      const std::vector<float> row = Normal(dim, 10 + latent, 3.0f);
      for (CacheType type : {CacheType::kF32, CacheType::kBf16, CacheType::kFp8}) {
        const std::size_t bytes = CacheRowBytes(type, latent, rope);
        EXPECT_EQ(bytes % 16, 0u);
        std::vector<unsigned char> stored(bytes + 1, 0xEE), again(bytes + 1, 0xEE);
        std::vector<float> loaded(dim + 1, kNan), reloaded(dim + 1, kNan);
        StoreCacheRow(type, row.data(), latent, rope, stored.data());
        LoadCacheRow(type, stored.data(), latent, rope, loaded.data());
        StoreCacheRow(type, loaded.data(), latent, rope, again.data());
        LoadCacheRow(type, again.data(), latent, rope, reloaded.data());
        EXPECT_TRUE(SameBits(loaded, reloaded));
        EXPECT_EQ(stored[bytes], 0xEE);
        EXPECT_TRUE(std::isnan(loaded[dim]));
        const float error = type == CacheType::kF32    ? 0
                            : type == CacheType::kBf16 ? 0x1p-8f
                                                       : 0x1p-4f;
        for (int i = 0; i < dim; ++i) {
          const float bound = i < latent ? error : std::fmin(error, 0x1p-8f);
          // FP8: half a step of a subnormal code where the number is small beside its block.
          const float floor =
              type == CacheType::kFp8 && i < latent ? 0x1p-10f * 20.0f / 448 * 2 : 0;
          ASSERT_LE(std::fabs(loaded[i] - row[i]), bound * std::fabs(row[i]) + floor) << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace temper::kernels
