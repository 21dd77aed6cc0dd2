// Attention over the paged cache: the canonical kernel gives the CPU's bits.
#include "kernels/attention.h"

#include "kernels/cuda/cuda_kernels.h"
#include "tests/simt/paged.h"
#include "tests/simt/testing.h"

namespace temper::kernels {
namespace {

using simt::Paged;
using simt::UnderEveryOrder;

struct Shape {
  int heads, latent, rope, page;
  std::vector<int> counts;
};
class CanonicalAttentionTest : public ::testing::TestWithParam<Shape> {};
INSTANTIATE_TEST_SUITE_P(RaggedShapes, CanonicalAttentionTest,
                         ::testing::Values(Shape{1, 4, 0, 3, {1}}, Shape{3, 20, 8, 16, {1, 16, 33}},
                                           Shape{2, 132, 10, 64, {255, 257}},
                                           Shape{1, 40, 24, 7, {600, 2}}));

TEST_P(CanonicalAttentionTest, GivesTheBitsOfTheCpuForEveryCacheType) {
  const Shape& s = GetParam();
  for (CacheType type : {CacheType::kF32, CacheType::kBf16, CacheType::kFp8}) {
    const Paged paged(type, s.latent, s.rope, s.page, s.counts);
    const std::vector<float> q =
        Normal(s.counts.size() * static_cast<std::size_t>(s.heads * (s.latent + s.rope)), 3);
    std::vector<float> o(s.counts.size() * static_cast<std::size_t>(s.heads * s.latent));
    const auto rows = paged.Rows();
    ThreadPool pool(1);
    MlaAttention(q.data(), rows.data(), static_cast<int>(rows.size()), s.heads, s.latent, s.rope,
                 0.21f, type, paged.offset(), o.data(), pool);
    UnderEveryOrder([&] {
      simt::Buffer<float> dq(q), out(o.size());
      cuda::MlaAttention(paged.Args(dq.data(), s.heads, 0.21f, out.data()), nullptr);
      EXPECT_TRUE(SameBits(out.Values(), o));
    });
  }
}

TEST(AttentionArgsTest, RefusesRowsThatAreNotAligned) {
  cuda::AttentionArgs a{};
  a.cache = {nullptr, 24, 0, 1, CacheType::kBf16, 4, 2};
  a.m = a.heads = 1;
  EXPECT_THROW(cuda::MlaAttention(a, nullptr), std::logic_error);
}

}  // namespace
}  // namespace temper::kernels
