// BF16 and FP8 weights, with and without quantised activations.
#include <cmath>
#include <memory>
#include <random>
#include <stdexcept>

#include "kernels/bf16.h"
#include "kernels/fp8.h"
#include "kernels/linear.h"
#include "tests/kernels/testing.h"

namespace temper::kernels {
namespace {

constexpr WeightType kTypes[] = {WeightType::kF32, WeightType::kBf16, WeightType::kFp8};

int Blocks(int n) { return (n + kBlock - 1) / kBlock; }

/// A matrix in one of the types; `value` [n, k] is what the order counts, FP8 codes times 2^-8.
struct Matrix {
  Matrix(WeightType type, int n, int k, std::uint64_t seed)
      : value(Normal(std::size_t(n) * k, seed)), packed(PackedBytes(type, n, k) + 64) {
    void* data = packed.data();
    weight = {data, n, k, type};
    if (type == WeightType::kF32) {
      PackLinear(value.data(), k, n, k, static_cast<float*>(data));
    } else if (type == WeightType::kBf16) {
      std::vector<std::uint16_t> codes(value.size());
      EncodeBf16(value.data(), std::int64_t(value.size()), codes.data());
      DecodeBf16(codes.data(), std::int64_t(value.size()), value.data());
      PackBf16(codes.data(), k, n, k, static_cast<std::uint16_t*>(data));
    } else {
      ThreadPool pool(1);
      codes.resize(value.size());
      scale.resize(std::size_t(Blocks(n)) * Blocks(k));
      QuantizeWeight(value.data(), k, n, k, ScaleRecipe::kFp32, codes.data(), k, scale.data(),
                     pool);
      for (float& s : scale) s *= kFp8Shift;
      UseCodes();
    }
  }
  Matrix(Matrix&&) = default;
  Matrix(const Matrix&) = delete;

  void UseCodes() {
    for (std::size_t i = 0; i < codes.size(); ++i) {
      // The two NaN codes count as the numbers that their fields would be.
      const float size =
          (codes[i] & 0x7F) == 0x7F ? (codes[i] & 0x80 ? -480.0f : 480.0f) : DecodeE4m3(codes[i]);
      value[i] = size / kFp8Shift;
    }
    PackFp8(codes.data(), weight.k, weight.n, weight.k, packed.data());
    weight.scale = scale.data();
  }

  std::vector<float> value;
  std::vector<std::uint8_t> packed, codes;
  std::vector<float> scale;
  LinearWeight weight;
};

struct Input {
  std::vector<float> x, scale;  // scale empty: not quantised
  std::int64_t ldx;
};

Input Inputs(int m, int k, bool quantised, std::uint64_t seed) {
  Input in{Normal(std::size_t(m) * (k + 3) + 1, seed), {}, k + 3};
  for (int r = 0; r < m; ++r) {
    for (int j = k; j < k + 3; ++j) in.x[r * in.ldx + j] = kNan;
  }
  if (quantised) {
    ThreadPool pool(1);
    in.scale.resize(std::size_t(m) * Blocks(k));
    QuantizeActivations(in.x.data(), in.ldx, m, k, ScaleRecipe::kFp32, in.x.data(), in.ldx,
                        in.scale.data(), pool);
  }
  return in;
}

LinearItem Item(const LinearWeight& w, const Input& in, int m, float* y, std::int64_t ldy) {
  if (in.scale.empty()) return {w, in.x.data(), in.ldx, m, y, ldy};
  return {w, in.x.data(), in.ldx, m, y, ldy, in.scale.data(), Blocks(w.k)};
}

std::vector<float> Forward(const LinearWeight& w, const Input& in, int m, ThreadPool& pool) {
  const std::int64_t ldy = w.n + 5;
  std::vector<float> y(std::size_t(m) * ldy + 1, kNan);
  const LinearItem item = Item(w, in, m, y.data(), ldy);
  LinearMany(&item, 1, pool);
  return y;
}

/// The written order, straight from the matrix that was never packed.
std::vector<float> Written(const Matrix& matrix, const Input& in, int m) {
  const int n = matrix.weight.n, k = matrix.weight.k;
  const std::int64_t ldy = n + 5;
  std::vector<float> out(std::size_t(m) * ldy + 1, kNan);
  for (int r = 0; r < m; ++r) {
    for (int i = 0; i < n; ++i) {
      float y = 0;
      for (int block = 0; block < Blocks(k); ++block) {
        float a = 0, s = 1;
        for (int j = block * 128; j < std::min(block * 128 + 128, k); ++j) {
          a = std::fma(matrix.value[std::size_t(i) * k + j], in.x[r * in.ldx + j], a);
        }
        if (!matrix.scale.empty()) s = matrix.scale[i / 128 * Blocks(k) + block];
        if (!in.scale.empty()) s = in.scale[r * Blocks(k) + block] * s;
        y = std::fma(a, s, y);
      }
      out[r * ldy + i] = y;
    }
  }
  return out;
}

void ExpectWrittenOrder(const Matrix& matrix, int m, bool quantised) {
  static ThreadPool pools[] = {ThreadPool(1), ThreadPool(2), ThreadPool(3)};
  const Input in = Inputs(m, matrix.weight.k, quantised, 7 + m);
  const std::vector<float> want = Written(matrix, in, m);
  for (Isa isa : Variants()) {
    const WithIsa with(isa);
    for (ThreadPool& pool : pools) {
      ASSERT_TRUE(SameBits(want, Forward(matrix.weight, in, m, pool)))
          << IsaName(isa) << " type " << int(matrix.weight.type) << " m " << m << " n "
          << matrix.weight.n << " k " << matrix.weight.k << (quantised ? " w8a8" : "") << ", "
          << pool.threads() << " threads";
    }
  }
}

TEST(LinearTypesTest, EveryVariantAndThreadCountGivesTheWrittenOrderBitForBit) {
  for (WeightType type : {WeightType::kBf16, WeightType::kFp8}) {
    for (int n : {1, 15, 16, 33, 64, 81, 130, 200}) {
      for (int k : {1, 3, 7, 127, 128, 130, 300}) {
        const Matrix matrix(type, n, k, n * 1000 + k);
        for (int m : {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 16, 17, 25, 60}) {
          ExpectWrittenOrder(matrix, m, false);
          if (type == WeightType::kFp8 && m % 3 != 2) ExpectWrittenOrder(matrix, m, true);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(LinearTypesTest, RaggedSizesOfRealModelsAgree) {
  struct Shape {
    int m, n, k;
  };
  for (WeightType type : kTypes) {
    for (const Shape s :
         {Shape{1, 576, 2048}, Shape{8, 576, 512}, Shape{3, 1408, 576}, Shape{1, 10944, 130},
          Shape{2, 40, 10944}, Shape{130, 136, 576}, Shape{200, 72, 1408}}) {
      const Matrix matrix(type, s.n, s.k, 5);
      ExpectWrittenOrder(matrix, s.m, false);
      if (type == WeightType::kFp8) ExpectWrittenOrder(matrix, s.m, true);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(LinearTypesTest, All256CodesCountTheSameInEveryVariant) {
  Matrix matrix(WeightType::kFp8, 64, 256, 1);
  for (int i = 0; i < 64; ++i) {
    for (int j = 0; j < 256; ++j)
      matrix.codes[std::size_t(i) * 256 + j] = static_cast<std::uint8_t>(i * 37 + j);
  }
  matrix.UseCodes();
  for (int m : {1, 2, 4, 5, 8, 13, 40}) ExpectWrittenOrder(matrix, m, false);
  // One code alone: an identity reads each weight as it is.
  Input identity{std::vector<float>(256 * 256), {}, 256};
  for (int j = 0; j < 256; ++j) identity.x[std::size_t(j) * 256 + j] = 1.0f;
  matrix.scale.assign(matrix.scale.size(), kFp8Shift);
  matrix.weight.scale = matrix.scale.data();
  ThreadPool pool(2);
  for (Isa isa : Variants()) {
    const WithIsa with(isa);
    const std::vector<float> y = Forward(matrix.weight, identity, 256, pool);
    for (int j = 0; j < 256; ++j) {
      for (int i = 0; i < 64; ++i) {
        const std::uint8_t code = matrix.codes[std::size_t(i) * 256 + j];
        if ((code & 0x7F) != 0x7F) {
          ASSERT_EQ(y[std::size_t(j) * 69 + i], DecodeE4m3(code)) << IsaName(isa) << int(code);
        }
      }
    }
  }
}

TEST(LinearTypesTest, ARowAloneIsTheRowInABatchOfAnySize) {
  ThreadPool pool(2);
  for (WeightType type : kTypes) {
    const Matrix matrix(type, 200, 300, 1);
    for (bool quantised : {false, true}) {
      if (quantised && type != WeightType::kFp8) continue;
      const Input all = Inputs(100, 300, quantised, 2);
      for (Isa isa : Variants()) {
        const WithIsa with(isa);
        const std::vector<float> batch = Forward(matrix.weight, all, 100, pool);
        for (int r = 0; r < 100; r += 7) {
          for (int m : {1, 2, 3, 5, 8, 14}) {
            if (r + m > 100) continue;
            Input some{
                {all.x.begin() + r * all.ldx, all.x.begin() + (r + m) * all.ldx + 1}, {}, all.ldx};
            if (quantised) some.scale.assign(&all.scale[r * 3], &all.scale[r * 3] + m * 3);
            std::vector<float> want(batch.begin() + r * 205, batch.begin() + (r + m) * 205);
            want.push_back(kNan);
            ASSERT_TRUE(SameBits(want, Forward(matrix.weight, some, m, pool)))
                << IsaName(isa) << " rows " << r << " + " << m;
          }
        }
      }
    }
  }
}

/// 1 - 2 <a, b> / (<a, a> + <b, b>).
double Difference(const std::vector<double>& a, const std::vector<double>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    ab += a[i] * b[i], aa += a[i] * a[i], bb += b[i] * b[i];
  return 1 - 2 * ab / (aa + bb);
}

TEST(LinearTypesTest, W8A8FollowsADoubleModelOfTheRecipe) {
  const int m = 9, n = 200, k = 1500;
  const std::vector<float> w = Normal(std::size_t(n) * k, 11), x = Normal(std::size_t(m) * k, 12);
  ThreadPool pool(1);
  for (ScaleRecipe recipe : {ScaleRecipe::kFp32, ScaleRecipe::kPow2}) {
    std::vector<std::uint8_t> codes(w.size()), packed(PackedSize(n, k));
    std::vector<float> scale(Blocks(n) * Blocks(k)), values(x.size()), x_scale(m * Blocks(k));
    QuantizeWeight(w.data(), k, n, k, recipe, codes.data(), k, scale.data(), pool);
    QuantizeActivations(x.data(), k, m, k, recipe, values.data(), k, x_scale.data(), pool);
    std::vector<double> recipe_y, plain_y, y;
    for (int r = 0; r < m; ++r) {
      for (int i = 0; i < n; ++i) {
        double sum = 0, plain = 0;
        for (int j = 0; j < k; ++j) {
          sum += double(DecodeE4m3(codes[std::size_t(i) * k + j])) *
                 values[std::size_t(r) * k + j] * scale[i / 128 * Blocks(k) + j / 128] *
                 x_scale[r * Blocks(k) + j / 128];
          plain += double(w[std::size_t(i) * k + j]) * x[std::size_t(r) * k + j];
        }
        recipe_y.push_back(sum), plain_y.push_back(plain);
      }
    }
    PackFp8(codes.data(), k, n, k, packed.data());
    for (float& s : scale) s *= kFp8Shift;
    std::vector<float> got(std::size_t(m) * n);
    const LinearItem item{{packed.data(), n, k, WeightType::kFp8, scale.data()},
                          values.data(),
                          k,
                          m,
                          got.data(),
                          n,
                          x_scale.data(),
                          Blocks(k)};
    LinearMany(&item, 1, pool);
    y.assign(got.begin(), got.end());
    EXPECT_LE(Difference(y, recipe_y), 1e-12);
    EXPECT_LE(Difference(y, plain_y), 1e-3);
    // The measure sees a wrong scale.
    std::vector<double> wrong = y;
    for (std::size_t i = 0; i < wrong.size(); i += 2) wrong[i] *= 1.2;
    EXPECT_GT(Difference(wrong, recipe_y), 1e-3);
  }
}

TEST(LinearTypesTest, TheComparisonsSeeACodeAScaleAndAnOrderThatDiffer) {
  ThreadPool pool(1);
  Matrix matrix(WeightType::kFp8, 64, 300, 1);
  const Input in = Inputs(5, 300, false, 2);
  const std::vector<float> before = Forward(matrix.weight, in, 5, pool);
  matrix.codes[63 * 300 + 299] ^= 1;
  matrix.UseCodes();
  EXPECT_FALSE(SameBits(before, Forward(matrix.weight, in, 5, pool)));
  matrix.codes[63 * 300 + 299] ^= 1;
  matrix.UseCodes();
  EXPECT_TRUE(SameBits(before, Forward(matrix.weight, in, 5, pool)));
  matrix.scale[2] = std::nextafter(matrix.scale[2], 1e9f);
  EXPECT_FALSE(SameBits(before, Forward(matrix.weight, in, 5, pool)));
  // The same numbers summed in one go, without blocks.
  matrix.scale[2] = std::nextafter(matrix.scale[2], 0.0f);
  std::vector<float> flat = before;
  for (int i = 0; i < 64; ++i) {
    float y = 0;
    for (int j = 0; j < 300; ++j) {
      y = std::fma(matrix.value[std::size_t(i) * 300 + j] * matrix.scale[j / 128], in.x[j], y);
    }
    flat[i] = y;
  }
  EXPECT_FALSE(SameBits(before, flat));
}

TEST(LinearTypesTest, PackedRowsAndTransposesAreThePlainPack) {
  const int n = 37, k = 50;
  std::mt19937 random(1);
  std::vector<std::uint8_t> w8(n * k), t8(n * k), a8(PackedSize(n, k)), b8 = a8, c8 = a8;
  std::vector<std::uint16_t> w16(n * k), t16(n * k), a16(PackedSize(n, k)), b16 = a16, c16 = a16;
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < k; ++j) {
      const unsigned code = random();
      w8[i * k + j] = t8[j * n + i] = static_cast<std::uint8_t>(code);
      w16[i * k + j] = t16[j * n + i] = static_cast<std::uint16_t>(code);
    }
  }
  PackFp8(w8.data(), k, n, k, a8.data());
  PackFp8Transposed(t8.data(), n, n, k, b8.data());
  PackBf16(w16.data(), k, n, k, a16.data());
  PackBf16Transposed(t16.data(), n, n, k, b16.data());
  for (int first = 0; first < n; first += 11) {
    const int rows = std::min(11, n - first);
    PackRows(w8.data() + first * k, k, rows, k, first, c8.data());
    PackRows(w16.data() + first * k, k, rows, k, first, c16.data());
  }
  EXPECT_EQ(a8, b8);
  EXPECT_EQ(a8, c8);
  EXPECT_EQ(a16, b16);
  EXPECT_EQ(a16, c16);
  EXPECT_EQ(a8[2 * k * 16 + 3 * 16 + 4], w8[36 * k + 3]);
  EXPECT_EQ(a8[2 * k * 16 + 3 * 16 + 5], 0);
  EXPECT_EQ(PackedBytes(WeightType::kFp8, n, k), 48u * 50u);
  EXPECT_EQ(PackedBytes(WeightType::kBf16, n, k), 96u * 50u);
  EXPECT_EQ(PackedBytes(WeightType::kF32, n, k), 192u * 50u);
}

TEST(LinearTypesTest, ScalesBelongToFp8) {
  ThreadPool pool(1);
  float x = 1, y = 0, s = 1;
  const std::uint8_t codes[16] = {};
  const LinearItem bare{{codes, 1, 1, WeightType::kFp8}, &x, 1, 1, &y, 1};
  EXPECT_THROW(LinearMany(&bare, 1, pool), std::logic_error);
  const float floats[16] = {};
  const LinearItem scaled{{floats, 1, 1, WeightType::kF32, &s}, &x, 1, 1, &y, 1};
  EXPECT_THROW(LinearMany(&scaled, 1, pool), std::logic_error);
  const LinearItem quantised{{floats, 1, 1}, &x, 1, 1, &y, 1, &s, 1};
  EXPECT_THROW(LinearMany(&quantised, 1, pool), std::logic_error);
}

}  // namespace
}  // namespace temper::kernels
