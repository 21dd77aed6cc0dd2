// Linear layers on a grid of threads: the CPU's bits.
#include <cmath>

#include "kernels/bf16.h"
#include "kernels/cuda/cuda_kernels.h"
#include "tests/simt/testing.h"

namespace temper::kernels {
namespace {

using simt::Buffer;
using simt::UnderEveryOrder;

struct Shape {
  int m, n, k;
};
class CanonicalLinearTest : public ::testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    const auto [m, n, k] = GetParam();
    w_ = Normal(static_cast<std::size_t>(n * k), 1);
    x_ = Normal(static_cast<std::size_t>(m * k), 2);
  }

  /// Runs the packed weights on both sides. `values`: E4M3 codes and their multipliers, or null.
  void Check(WeightType type, const std::vector<unsigned char>& packed,
             const std::vector<float>& scale, const std::vector<std::uint8_t>* codes,
             const std::vector<float>& x_scale) {
    const auto [m, n, k] = GetParam();
    std::vector<float> y(static_cast<std::size_t>(m * n)), x = x_;
    if (codes != nullptr) {
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = DecodeE4m3((*codes)[i]);
    }
    const std::int64_t blocks = (k + kBlock - 1) / kBlock;
    std::vector<float> aligned((packed.size() + 3) / 4 + 16);
    const LinearItem item{{packed.data(), n, k, type, scale.empty() ? nullptr : scale.data()},
                          x.data(),
                          k,
                          m,
                          y.data(),
                          n,
                          codes != nullptr ? x_scale.data() : nullptr,
                          blocks};
    LinearMany(&item, 1, pool_);
    UnderEveryOrder([&] {
      Buffer<unsigned char> dw(packed);
      Buffer<float> ds(scale), dx(x_), dxs(x_scale), dy(y.size());
      Buffer<std::uint8_t> dc(codes != nullptr ? *codes : std::vector<std::uint8_t>());
      cuda::LinearArgs a{};
      a.w = {dw.data(), n, k, type, scale.empty() ? nullptr : ds.data()};
      a.x = codes == nullptr ? dx.data() : nullptr;
      a.ldx = k;
      a.codes = codes == nullptr ? nullptr : dc.data();
      a.x_scale = codes == nullptr ? nullptr : dxs.data();
      a.m = m;
      a.y = dy.data();
      a.ldy = n;
      cuda::Linear(a, nullptr);
      EXPECT_TRUE(SameBits(dy.Values(), y));
    });
  }

  template <typename T, typename Pack>
  std::vector<unsigned char> Packed(const std::vector<T>& w, const Pack& pack) {
    const auto [m, n, k] = GetParam();
    std::vector<T> out(PackedSize(n, k));
    pack(w.data(), k, n, k, out.data());
    const unsigned char* bytes = reinterpret_cast<const unsigned char*>(out.data());
    return {bytes, bytes + out.size() * sizeof(T)};
  }

  ThreadPool pool_{1};
  std::vector<float> w_, x_;
};
INSTANTIATE_TEST_SUITE_P(RaggedShapes, CanonicalLinearTest,
                         ::testing::Values(Shape{1, 1, 1}, Shape{1, 37, 300}, Shape{3, 16, 128},
                                           Shape{6, 150, 129}, Shape{4, 20, 2200}));

TEST_P(CanonicalLinearTest, GivesTheBitsOfTheCpuInFp32) {
  Check(WeightType::kF32, Packed(w_, [](auto... a) { PackLinear(a...); }), {}, nullptr, {});
}

TEST_P(CanonicalLinearTest, GivesTheBitsOfTheCpuInBf16) {
  std::vector<std::uint16_t> w(w_.size());
  EncodeBf16(w_.data(), static_cast<std::int64_t>(w.size()), w.data());
  Check(WeightType::kBf16, Packed(w, [](auto... a) { PackBf16(a...); }), {}, nullptr, {});
}

TEST_P(CanonicalLinearTest, GivesTheBitsOfTheCpuInFp8) {
  const auto [m, n, k] = GetParam();
  const std::size_t blocks = static_cast<std::size_t>((k + kBlock - 1) / kBlock);
  std::vector<std::uint8_t> codes(w_.size()), x_codes(x_.size());
  std::vector<float> scale(static_cast<std::size_t>((n + kBlock - 1) / kBlock) * blocks);
  QuantizeWeight(w_.data(), k, n, k, ScaleRecipe::kFp32, codes.data(), k, scale.data(), pool_);
  for (float& s : scale) s = s * kFp8Shift;
  const auto packed = Packed(codes, [](auto... a) { PackFp8(a...); });
  Check(WeightType::kFp8, packed, scale, nullptr, {});  // W8A16
  std::vector<float> values(x_.size()), x_scale(static_cast<std::size_t>(m) * blocks);
  QuantizeActivations(x_.data(), k, m, k, ScaleRecipe::kPow2, values.data(), k, x_scale.data(),
                      pool_);
  for (std::size_t i = 0; i < values.size(); ++i) x_codes[i] = EncodeE4m3(values[i]);
  Check(WeightType::kFp8, packed, scale, &x_codes, x_scale);  // W8A8
}

TEST(CanonicalLinearArgsTest, RefusesScalesThatDoNotBelong) {
  cuda::LinearArgs a{};
  float one = 1;
  a.w = {&one, 1, 1, WeightType::kF32, &one};
  a.x = &one;
  a.m = 1;
  EXPECT_THROW(cuda::Linear(a, nullptr), std::logic_error);
  a.w = {&one, 1, 1, WeightType::kFp8, nullptr};
  EXPECT_THROW(cuda::Linear(a, nullptr), std::logic_error);
}

}  // namespace
}  // namespace temper::kernels
