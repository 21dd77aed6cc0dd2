// The router and the way to the experts and back, against the CPU.
#include <algorithm>
#include <numeric>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/ops.h"
#include "kernels/router.h"
#include "tests/simt/testing.h"

namespace temper::kernels {
namespace {

using simt::Buffer;
using simt::UnderEveryOrder;

RouterShape Shape(int experts, int k, int groups, int kept, RouterMethod method, bool normalize) {
  return {experts, k, groups, kept, normalize, 2.5f, method};
}

const RouterShape kShapes[] = {
    Shape(256, 8, 8, 4, RouterMethod::kNoauxTc, true),
    Shape(64, 6, 1, 1, RouterMethod::kGreedy, false),
    Shape(160, 6, 8, 3, RouterMethod::kGroupLimitedGreedy, false),
    Shape(5, 2, 5, 3, RouterMethod::kNoauxTc, true),  // groups of one
    Shape(33, 33, 3, 3, RouterMethod::kNoauxTc, true),
};

class RouterTest : public ::testing::TestWithParam<RouterShape> {
 protected:
  void Check(const std::vector<float>& logits, int m, const std::vector<std::int32_t>* forced) {
    const RouterShape& shape = GetParam();
    const std::size_t experts = static_cast<std::size_t>(shape.experts);
    const std::size_t chosen = static_cast<std::size_t>(m * shape.top_k);
    std::vector<float> bias = Normal(experts, 4, 0.1f), weight(chosen);
    if (experts > 3) bias[2] = bias[3];
    std::vector<std::int32_t> ids(chosen);
    ThreadPool pool(1);
    Route(logits.data(), shape.experts, bias.data(), shape, m, forced ? forced->data() : nullptr,
          ids.data(), weight.data(), pool);
    UnderEveryOrder([&] {
      Buffer<float> dl(logits), db(bias), dw(chosen);
      Buffer<std::int32_t> di(chosen), df(forced ? *forced : std::vector<std::int32_t>());
      cuda::Route(dl.data(), shape.experts, db.data(), shape, m, forced ? df.data() : nullptr,
                  di.data(), dw.data(), nullptr);
      EXPECT_EQ(di.Values(), ids);
      EXPECT_TRUE(SameBits(dw.Values(), weight));
    });
  }
};
INSTANTIATE_TEST_SUITE_P(Methods, RouterTest, ::testing::ValuesIn(kShapes));

TEST_P(RouterTest, ChoosesAndWeighsAsTheCpu) {
  const std::size_t experts = static_cast<std::size_t>(GetParam().experts);
  Check(Normal(7 * experts, 1, 2.0f), 7, nullptr);
}

TEST_P(RouterTest, BreaksTiesAsTheCpu) {
  const std::size_t experts = static_cast<std::size_t>(GetParam().experts);
  std::vector<float> logits = Normal(3 * experts, 1);
  for (float& x : logits) x = std::round(x);
  std::fill_n(logits.begin(), experts, 0.0f);
  Check(logits, 3, nullptr);
}

TEST_P(RouterTest, StillGivesDistinctExpertsForBrokenLogits) {
  const std::size_t experts = static_cast<std::size_t>(GetParam().experts);
  std::vector<float> logits = Normal(3 * experts, 1);
  for (std::size_t i = 0; i < experts; ++i) logits[i] = i % 3 == 0 ? logits[i] : kNan;
  std::fill_n(logits.begin() + static_cast<std::ptrdiff_t>(experts), experts, -HUGE_VALF);
  Check(logits, 3, nullptr);
}

TEST_P(RouterTest, ReplaysForcedExperts) {
  const RouterShape& shape = GetParam();
  std::vector<std::int32_t> forced;
  for (int r = 0; r < 4; ++r) {
    for (int j = 0; j < shape.top_k; ++j)
      forced.push_back(j + (shape.experts - shape.top_k) * r / 4);
  }
  Check(Normal(static_cast<std::size_t>(4 * shape.experts), 2), 4, &forced);
}

TEST(ExpertsTest, ReplacesAForcedExpertOutOfRangeByNan) {
  RouterShape shape = Shape(4, 1, 1, 1, RouterMethod::kNoauxTc, false);
  Buffer<float> logits(Normal(4, 1)), bias(Normal(4, 2)), weight(1);
  Buffer<std::int32_t> ids(1), forced(std::vector<std::int32_t>{4});
  cuda::Route(logits.data(), 4, bias.data(), shape, 1, forced.data(), ids.data(), weight.data(),
              nullptr);
  EXPECT_NE(weight.data()[0], weight.data()[0]);
  shape.top_k = 5;
  EXPECT_THROW(cuda::Route(nullptr, 4, nullptr, shape, 1, nullptr, nullptr, nullptr, nullptr),
               std::logic_error);
}

struct Tokens {
  int m, k, experts, d;
};
class SortTest : public ::testing::TestWithParam<Tokens> {};
INSTANTIATE_TEST_SUITE_P(RaggedShapes, SortTest,
                         ::testing::Values(Tokens{1, 1, 1, 1}, Tokens{13, 3, 7, 50},
                                           Tokens{100, 6, 64, 20}, Tokens{90, 8, 9, 300}));

TEST_P(SortTest, SortsByExpertAndKeepsTheOrderOfTokens) {
  const auto [m, k, experts, d] = GetParam();
  std::vector<std::int32_t> ids;
  for (int r = 0; r < m; ++r) {
    std::vector<std::int32_t> all(static_cast<std::size_t>(experts));
    std::iota(all.begin(), all.end(), 0);
    std::shuffle(all.begin(), all.end(), std::mt19937(static_cast<unsigned>(r)));
    std::sort(all.begin(), all.begin() + k);
    ids.insert(ids.end(), all.begin(), all.begin() + k);
  }
  std::vector<std::int32_t> order(ids.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return ids[static_cast<std::size_t>(a)] < ids[static_cast<std::size_t>(b)];
  });
  const std::vector<float> x = Normal(static_cast<std::size_t>(m * d), 1);
  UnderEveryOrder([&] {
    Buffer<std::int32_t> di(ids), offset(static_cast<std::size_t>(experts) + 1), slot(ids.size()),
        source(ids.size());
    cuda::SortByExpert(di.data(), m, k, experts, offset.data(), slot.data(), source.data(),
                       nullptr);
    for (std::size_t i = 0; i < order.size(); ++i) {
      EXPECT_EQ(slot.data()[order[i]], static_cast<std::int32_t>(i));
      EXPECT_EQ(source.data()[i], order[i] / k);
    }
    for (int e = 0; e <= experts; ++e) {
      EXPECT_EQ(offset.data()[e],
                std::count_if(ids.begin(), ids.end(), [&](std::int32_t id) { return id < e; }));
    }
    Buffer<float> dx(x), gathered(ids.size() * static_cast<std::size_t>(d));
    cuda::GatherRows(dx.data(), source.data(), m * k, 4 * d, gathered.data(), nullptr);
    for (int i = 0; i < m * k; ++i) {
      ASSERT_EQ(0, std::memcmp(gathered.data() + i * d, x.data() + source.data()[i] * d,
                               sizeof(float) * static_cast<std::size_t>(d)));
    }
  });
}

TEST_P(SortTest, CombinesExpertsAsTheCpu) {
  const auto [m, k, experts, d] = GetParam();
  const std::size_t slots = static_cast<std::size_t>(m * k), all = static_cast<std::size_t>(m * d);
  std::vector<std::int32_t> slot(slots);
  for (std::size_t i = 0; i < slots; ++i) slot[i] = static_cast<std::int32_t>(slots - 1 - i);
  const std::vector<float> out = Normal(slots * static_cast<std::size_t>(d), 1),
                           weight = Normal(slots, 2), shared = Normal(all, 3),
                           residual = Normal(all, 4);
  ThreadPool pool(1);
  for (bool rest : {true, false}) {
    std::vector<float> y(all);
    CombineExperts(out.data(), d, slot.data(), weight.data(), k, rest ? shared.data() : nullptr, d,
                   rest ? residual.data() : nullptr, d, m, d, y.data(), d, pool);
    UnderEveryOrder([&] {
      Buffer<float> dout(out), dw(weight), ds(shared), dr(residual), dy(all);
      Buffer<std::int32_t> dslot(slot);
      // y may alias the residual.
      float* to = rest ? dr.data() : dy.data();
      cuda::CombineExperts(dout.data(), d, dslot.data(), dw.data(), k, rest ? ds.data() : nullptr,
                           d, rest ? dr.data() : nullptr, d, m, d, to, d, nullptr);
      EXPECT_TRUE(SameBits(rest ? dr.Values() : dy.Values(), y));
    });
  }
}

}  // namespace
}  // namespace temper::kernels
