// Grouped linear layers: heads side by side, experts by offsets on the device; on tensor cores and
// in the canonical order. And what lies between layers.
#include <cmath>

#include "kernels/bf16.h"
#include "kernels/cuda/cuda_kernels.h"
#include "tests/simt/testing.h"

namespace temper::kernels {
namespace {

using simt::Buffer;
using simt::UnderEveryOrder;

std::size_t Count(std::int64_t a, std::int64_t b) { return static_cast<std::size_t>(a * b); }

struct Layers {
  int groups, n, k;
  std::vector<int> rows;  // of each group
};

/// Layers of one shape packed side by side, as the engine keeps them on a device.
class GroupsTest : public ::testing::TestWithParam<Layers> {
 protected:
  void SetUp() override {
    const Layers& s = GetParam();
    offset_ = {0};
    for (int r : s.rows) offset_.push_back(offset_.back() + r);
    m_ = offset_.back();
    blocks_ = (s.k + kBlock - 1) / kBlock;
    x_ = Normal(Count(m_, s.k), 2);
  }

  /// Fills packed_, scale_ and exact_ (the dequantised weights of every group).
  void Pack(WeightType type) {
    const Layers& s = GetParam();
    step_ = (PackedBytes(type, s.n, s.k) + 63) / 64 * 64;
    scales_ = type == WeightType::kFp8 ? Count((s.n + kBlock - 1) / kBlock, blocks_) : 0;
    packed_.assign(step_ * static_cast<std::size_t>(s.groups), 0);
    scale_.assign(scales_ * static_cast<std::size_t>(s.groups), 0);
    exact_.clear();
    for (int g = 0; g < s.groups; ++g) PackOne(type, g);
  }
  void PackOne(WeightType type, int g) {
    const Layers& s = GetParam();
    std::vector<float> w = Normal(Count(s.n, s.k), 10 + static_cast<std::uint64_t>(g), 0.1f);
    unsigned char* to = packed_.data() + step_ * static_cast<std::size_t>(g);
    if (type == WeightType::kBf16) {
      std::vector<std::uint16_t> half(w.size()), out(PackedSize(s.n, s.k));
      EncodeBf16(w.data(), std::int64_t(w.size()), half.data());
      PackBf16(half.data(), s.k, s.n, s.k, out.data());
      std::memcpy(to, out.data(), out.size() * 2);
      DecodeBf16(half.data(), std::int64_t(w.size()), w.data());
    } else {
      std::vector<std::uint8_t> codes(w.size()), out(PackedSize(s.n, s.k));
      float* scale = scale_.data() + scales_ * static_cast<std::size_t>(g);
      QuantizeWeight(w.data(), s.k, s.n, s.k, ScaleRecipe::kFp32, codes.data(), s.k, scale, pool_);
      DequantizeWeight(codes.data(), s.k, s.n, s.k, scale, w.data(), s.k, pool_);
      for (std::size_t i = 0; i < scales_; ++i) scale[i] *= kFp8Shift;
      PackFp8(codes.data(), s.k, s.n, s.k, out.data());
      std::memcpy(to, out.data(), out.size());
    }
    exact_.push_back(std::move(w));
  }

  LinearWeight Host(WeightType type, int g) const {
    const Layers& s = GetParam();
    return {packed_.data() + step_ * static_cast<std::size_t>(g), s.n, s.k, type,
            scales_ > 0 ? scale_.data() + scales_ * static_cast<std::size_t>(g) : nullptr};
  }

  /// Every group by the CPU.
  std::vector<float> ByCpu(WeightType type, const std::vector<float>& x, const float* x_scale) {
    const Layers& s = GetParam();
    std::vector<float> y(Count(m_, s.n));
    std::vector<unsigned char> aligned(packed_);
    for (int g = 0; g < s.groups; ++g) {
      const std::int64_t first = offset_[static_cast<std::size_t>(g)];
      const LinearItem item{Host(type, g),
                            x.data() + first * s.k,
                            s.k,
                            s.rows[static_cast<std::size_t>(g)],
                            y.data() + first * s.n,
                            s.n,
                            x_scale == nullptr ? nullptr : x_scale + first * blocks_,
                            blocks_};
      LinearMany(&item, 1, pool_);
    }
    return y;
  }

  /// Rows by experts on tensor cores; `quantize`: W8A8.
  std::vector<float> OnTensorCores(WeightType type, bool quantize) {
    const Layers& s = GetParam();
    const std::int64_t ld = cuda::TensorWidth(s.k);
    Buffer<unsigned char> w(packed_);
    Buffer<float> scale(scale_), x(x_), y(Count(m_, s.n)), x_scale(Count(m_, blocks_));
    Buffer<std::uint16_t> high(Count(m_, ld)), low(Count(m_, ld));
    Buffer<std::int32_t> offset(offset_);
    const cuda::TensorRows rows{high.data(), quantize ? nullptr : low.data(),
                                quantize ? x_scale.data() : nullptr};
    cuda::TensorInputs(x.data(), s.k, m_, s.k, ScaleRecipe::kPow2, rows, nullptr);
    cuda::TensorLinear(
        {{w.data(), s.n, s.k, type, scales_ > 0 ? scale.data() : nullptr},
         rows,
         ld,
         m_,
         y.data(),
         s.n,
         {s.groups, std::int64_t(step_), std::int64_t(scales_), 0, 0, offset.data()}},
        nullptr);
    return y.Values();
  }

  void ExpectWithin(const std::vector<float>& y, const std::vector<float>& x, double bound) {
    const Layers& s = GetParam();
    double worst = 0;
    for (int g = 0; g < s.groups; ++g) {
      for (int r = offset_[static_cast<std::size_t>(g)];
           r < offset_[static_cast<std::size_t>(g) + 1]; ++r) {
        for (int i = 0; i < s.n; ++i) {
          double sum = 0, size = 0;
          for (int j = 0; j < s.k; ++j) {
            const double term =
                double{exact_[static_cast<std::size_t>(g)][Count(i, s.k) + Count(j, 1)]} *
                double{x[Count(r, s.k) + Count(j, 1)]};
            sum += term;
            size += std::fabs(term);
          }
          const double error = std::fabs(double{y[Count(r, s.n) + Count(i, 1)]} - sum);
          ASSERT_TRUE(std::isfinite(error)) << g << " " << r << " " << i;
          worst = std::max(worst, error / (size + 1e-30));
        }
      }
    }
    EXPECT_LE(worst, bound);
  }

  ThreadPool pool_{1};
  int m_ = 0;
  std::int64_t blocks_ = 0;
  std::size_t step_ = 0, scales_ = 0;
  std::vector<std::int32_t> offset_;
  std::vector<float> x_, scale_;
  std::vector<std::vector<float>> exact_;
  alignas(64) std::vector<unsigned char> packed_;
};
INSTANTIATE_TEST_SUITE_P(RaggedShapes, GroupsTest,
                         ::testing::Values(Layers{1, 16, 16, {1}}, Layers{3, 37, 300, {5, 0, 12}},
                                           Layers{5, 20, 129, {0, 1, 9, 0, 3}},
                                           Layers{2, 150, 1100, {3, 18}}, Layers{1, 40, 72, {70}}));

#ifdef TEMPER_ON_DEVICE
constexpr double kCut = 0x1p-11;
#else
constexpr double kCut = 0x1p-15;  // the machine cuts sums at 24 bits; low ends at 2^-17
#endif

TEST_P(GroupsTest, ExpertsInTheCanonicalOrderAreTheCpus) {
  const Layers& s = GetParam();
  for (WeightType type : {WeightType::kBf16, WeightType::kFp8}) {
    Pack(type);
    const std::vector<float> y = ByCpu(type, x_, nullptr);
    UnderEveryOrder([&] {
      Buffer<unsigned char> w(packed_);
      Buffer<float> scale(scale_), x(x_), out(y.size());
      Buffer<std::int32_t> offset(offset_);
      cuda::Linear({{w.data(), s.n, s.k, type, scales_ > 0 ? scale.data() : nullptr},
                    x.data(),
                    s.k,
                    nullptr,
                    nullptr,
                    m_,
                    out.data(),
                    s.n,
                    {s.groups, std::int64_t(step_), std::int64_t(scales_), 0, 0, offset.data()}},
                   nullptr);
      EXPECT_TRUE(SameBits(out.Values(), y));
    });
  }
}

TEST_P(GroupsTest, TensorCoresStayInsideTheirBound) {
  for (WeightType type : {WeightType::kBf16, WeightType::kFp8}) {
    Pack(type);
    const std::vector<float> y = OnTensorCores(type, false);
    UnderEveryOrder([&] { EXPECT_TRUE(SameBits(OnTensorCores(type, false), y)); });
    ExpectWithin(y, x_, kCut);
  }
}

TEST_P(GroupsTest, QuantisedInputsAreExactOnTensorCores) {
  const Layers& s = GetParam();
  Pack(WeightType::kFp8);
  std::vector<float> values(x_.size()), scales(Count(m_, blocks_));
  QuantizeActivations(x_.data(), s.k, m_, s.k, ScaleRecipe::kPow2, values.data(), s.k,
                      scales.data(), pool_);
  for (int r = 0; r < m_; ++r) {
    for (int j = 0; j < s.k; ++j)
      values[Count(r, s.k) + Count(j, 1)] *= scales[Count(r, blocks_) + Count(j / kBlock, 1)];
  }
  ExpectWithin(OnTensorCores(WeightType::kFp8, true), values, kCut);
}

TEST_P(GroupsTest, ARowHasItsBitsInAnyCompany) {
  const Layers& s = GetParam();
  Pack(WeightType::kFp8);
  const std::vector<float> y = OnTensorCores(WeightType::kFp8, false);
  // The last row of the last group that has any, alone in the call.
  int group = s.groups - 1;
  while (s.rows[static_cast<std::size_t>(group)] == 0) --group;
  x_ = {x_.end() - s.k, x_.end()};
  offset_.assign(static_cast<std::size_t>(s.groups) + 1, 0);
  for (int g = group; g < s.groups; ++g) offset_[static_cast<std::size_t>(g) + 1] = 1;
  m_ = 1;
  EXPECT_TRUE(SameBits(OnTensorCores(WeightType::kFp8, false), {y.end() - s.n, y.end()}));
}

TEST_P(GroupsTest, HeadsTakeTheirColumnsOfEveryRow) {
  const Layers& s = GetParam();
  const int m = 7;
  const std::vector<float> x = Normal(Count(m * s.groups, s.k), 4);
  for (WeightType type : {WeightType::kBf16, WeightType::kFp8}) {
    Pack(type);
    std::vector<float> expected(Count(m * s.groups, s.n));
    for (int g = 0; g < s.groups; ++g) {
      const LinearItem item{
          Host(type, g), x.data() + g * s.k, s.groups * s.k, m, expected.data() + g * s.n,
          s.groups * s.n};
      LinearMany(&item, 1, pool_);
    }
    Buffer<unsigned char> w(packed_);
    Buffer<float> scale(scale_), dx(x), y(expected.size());
    const LinearWeight first{w.data(), s.n, s.k, type, scales_ > 0 ? scale.data() : nullptr};
    cuda::Groups groups{s.groups, std::int64_t(step_), std::int64_t(scales_), s.k, s.n, nullptr};
    cuda::Linear(
        {first, dx.data(), s.groups * s.k, nullptr, nullptr, m, y.data(), s.groups * s.n, groups},
        nullptr);
    EXPECT_TRUE(SameBits(y.Values(), expected));
    const std::int64_t ld = cuda::TensorWidth(s.k);
    Buffer<std::uint16_t> high(Count(m * s.groups, ld)), low(Count(m * s.groups, ld));
    cuda::TensorInputs(dx.data(), s.k, m * s.groups, s.k, ScaleRecipe::kPow2,
                       {high.data(), low.data(), nullptr}, nullptr);
    groups.x_step = ld;
    cuda::TensorLinear({first,
                        {high.data(), low.data(), nullptr},
                        ld * s.groups,
                        m,
                        y.data(),
                        s.groups * s.n,
                        groups},
                       nullptr);
    const std::vector<float> near = y.Values();
    for (std::size_t i = 0; i < near.size(); ++i)
      ASSERT_NEAR(near[i], expected[i], 0.02f * (1 + std::fabs(expected[i]))) << i;
  }
}

TEST(GroupsArgsTest, RefusesShapesThatMeanNothing) {
  cuda::TensorLinearArgs a{};
  a.w = {nullptr, 16, 20, WeightType::kBf16, nullptr};
  a.ldx = 20;  // less than TensorWidth
  EXPECT_THROW(cuda::TensorLinear(a, nullptr), std::logic_error);
  a.ldx = 32;
  a.w.type = WeightType::kF32;
  EXPECT_THROW(cuda::TensorLinear(a, nullptr), std::logic_error);
  EXPECT_THROW(cuda::Embed(nullptr, WeightType::kFp8, nullptr, 1, 8, nullptr, nullptr),
               std::logic_error);
}

TEST(BetweenTest, EmbeddingBiasResidualColumnsAndPlaces) {
  for (const auto& [m, h] : {std::pair(1, 5), std::pair(3, 257), std::pair(40, 72)}) {
    const std::vector<float> table = Normal(Count(11, h), 1), block = Normal(Count(m, h), 2),
                             bias = Normal(Count(1, h), 3);
    std::vector<std::uint16_t> half(table.size());
    EncodeBf16(table.data(), std::int64_t(table.size()), half.data());
    std::vector<std::int32_t> ids;
    for (int r = 0; r < m; ++r) ids.push_back(r * 7 % 11);
    UnderEveryOrder([&, m = m, h = h] {
      Buffer<float> dt(table), db(block), dbias(bias), x(Count(m, h)), wide(Count(m, h + 3));
      Buffer<std::uint16_t> dh(half);
      Buffer<std::int32_t> di(ids);
      for (bool rounds : {false, true}) {
        const void* from = rounds ? static_cast<const void*>(dh.data()) : dt.data();
        cuda::Embed(from, rounds ? WeightType::kBf16 : WeightType::kF32, di.data(), m, h, x.data(),
                    nullptr);
        cuda::AddBias(dbias.data(), m, h, x.data(), nullptr);
        cuda::AddBlock(db.data(), std::int64_t{m} * h, rounds, x.data(), nullptr);
        cuda::CopyColumns(x.data(), h, m, h, wide.data() + 3, h + 3, nullptr);
        const std::vector<float> got = x.Values(), moved = wide.Values();
        for (int r = 0; r < m; ++r) {
          for (int i = 0; i < h; ++i) {
            float e = table[Count(ids[static_cast<std::size_t>(r)], h) + Count(i, 1)];
            float b = block[Count(r, h) + Count(i, 1)];
            if (rounds) {
              RoundBf16(&e, 1);
              RoundBf16(&b, 1);
            }
            const float sum = (e + bias[Count(i, 1)]) + b;
            ASSERT_EQ(got[Count(r, h) + Count(i, 1)], sum);
            ASSERT_EQ(moved[Count(r, h + 3) + 3 + Count(i, 1)], sum);
          }
        }
      }
      Buffer<std::int32_t> to(Count(m, h));
      std::vector<std::int64_t> index;
      for (int r = m - 1; r >= 0; --r) index.push_back(std::int64_t{r} * h);
      Buffer<std::int64_t> where(index);
      cuda::Scatter(where.data(), di.data(), m, to.data(), nullptr);
      for (int r = 0; r < m; ++r)
        EXPECT_EQ(to.Values()[Count(m - 1 - r, h)], ids[static_cast<std::size_t>(r)]);
    });
  }
}

}  // namespace
}  // namespace temper::kernels
