#include "kernels/router.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <stdexcept>

#include "kernels/math.h"
#include "tests/kernels/testing.h"

namespace temper::kernels {
namespace {

struct Routes {
  std::vector<std::int32_t> ids;
  std::vector<float> weight;
};

Routes Route(const std::vector<float>& logits, int ld, const std::vector<float>& bias,
             const RouterShape& s, int m, ThreadPool& pool, const std::int32_t* forced = nullptr) {
  Routes out{std::vector<std::int32_t>(std::size_t(m) * s.top_k, -1),
             std::vector<float>(std::size_t(m) * s.top_k, kNan)};
  Route(logits.data(), ld, bias.data(), s, m, forced, out.ids.data(), out.weight.data(), pool);
  return out;
}

/// Indices of v sorted by value descending, ties to the lower.
std::vector<int> Order(const std::vector<float>& v) {
  std::vector<int> order(v.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return v[a] > v[b]; });
  return order;
}

/// The rule in sorted lists, a row.
void Reference(const float* logits, const std::vector<float>& bias, const RouterShape& s,
               std::vector<std::int32_t>& ids, std::vector<float>& weight) {
  std::vector<float> sig, b;
  for (int i = 0; i < s.experts; ++i) {
    const bool v3 = s.method == RouterMethod::kNoauxTc;
    const float max = *std::max_element(logits, logits + s.experts);
    sig.push_back(v3 ? Sigmoid(logits[i]) : Exp(logits[i] - max));
    b.push_back(sig.back() + (v3 ? bias[i] : 0.0f));
  }
  if (s.method != RouterMethod::kNoauxTc) {
    float total = 0;
    for (float x : sig) total += x;
    for (float& x : sig) x /= total;
    b = sig;
  }
  const int size = s.experts / s.groups;
  std::vector<float> group;
  for (int g = 0; g < s.groups; ++g) {
    std::vector<float> part(b.begin() + g * size, b.begin() + (g + 1) * size);
    std::sort(part.rbegin(), part.rend());
    const bool one = size == 1 || s.method != RouterMethod::kNoauxTc;
    group.push_back(one ? part[0] : part[0] + part[1]);
  }
  std::set<int> kept;
  for (int i = 0; i < s.topk_groups; ++i) kept.insert(Order(group)[i]);
  std::vector<float> masked = b;
  for (int i = 0; i < s.experts; ++i) {
    if (s.method != RouterMethod::kGreedy && !kept.contains(i / size))
      masked[i] = -std::numeric_limits<float>::infinity();
  }
  const std::vector<int> order = Order(masked);
  std::vector<int> chosen(order.begin(), order.begin() + s.top_k);
  std::sort(chosen.begin(), chosen.end());
  float sum = 0;
  for (int id : chosen) sum += sig[id];
  for (int id : chosen) {
    ids.push_back(id);
    weight.push_back((s.normalize ? sig[id] / (sum + 1e-20f) : sig[id]) * s.scale);
  }
}

TEST(RouterTest, AgreesWithTheRuleInEveryVariantAlsoWithManyTies) {
  const RouterShape shapes[] = {{8, 2, 1, 1, true, 2.5f},
                                {16, 4, 4, 2, true, 1.0f},
                                {64, 8, 8, 4, true, 2.5f},
                                {256, 8, 8, 4, true, 2.5f},
                                {6, 3, 6, 3, true, 1.0f},
                                {6, 6, 2, 2, false, 1.5f},
                                {1, 1, 1, 1, true, 1.0f},
                                {17, 5, 1, 1, false, 1.0f},
                                {64, 6, 1, 1, false, 1.0f, RouterMethod::kGreedy},
                                {160, 6, 8, 3, false, 16.0f, RouterMethod::kGroupLimitedGreedy},
                                {12, 4, 12, 4, false, 1.0f, RouterMethod::kGroupLimitedGreedy}};
  for (const RouterShape& s : shapes) {
    for (const bool ties : {false, true}) {
      const int m = 150, ld = s.experts + 3;
      std::vector<float> logits = Normal(std::size_t(m) * ld, s.experts),
                         bias = Normal(s.experts, 5, 0.1f);
      if (ties) {
        for (float& v : logits) v = std::round(v);
        for (float& v : bias) v = std::round(v * 4) / 4;
      }
      std::vector<std::int32_t> ids;
      std::vector<float> weight;
      for (int r = 0; r < m; ++r) Reference(logits.data() + r * ld, bias, s, ids, weight);
      for (Isa isa : Variants()) {
        const WithIsa with(isa);
        for (int threads : {1, 2, 3}) {
          ThreadPool pool(threads);
          const Routes routes = Route(logits, ld, bias, s, m, pool);
          ASSERT_EQ(routes.ids, ids) << IsaName(isa) << ", " << s.experts << " experts";
          ASSERT_TRUE(SameBits(weight, routes.weight)) << IsaName(isa);
        }
      }
    }
  }
}

TEST(RouterTest, TiesGoToTheLowerExpertAndTheLowerGroup) {
  ThreadPool pool(1);
  const std::vector<float> logits(8, 0.25f), bias(8, 0.0f);
  EXPECT_EQ(Route(logits, 8, bias, {8, 3, 1, 1, true, 1.0f}, 1, pool).ids,
            (std::vector<std::int32_t>{0, 1, 2}));
  EXPECT_EQ(Route(logits, 8, bias, {8, 3, 4, 2, true, 1.0f}, 1, pool).ids,
            (std::vector<std::int32_t>{0, 1, 2}));
}

TEST(RouterTest, TheBiasChoosesButDoesNotWeigh) {
  ThreadPool pool(1);
  const std::vector<float> logits = {2, 1, 0, -1}, bias = {0, 0, 0, 10};
  const Routes routes = Route(logits, 4, bias, {4, 2, 1, 1, false, 1.0f}, 1, pool);
  EXPECT_EQ(routes.ids, (std::vector<std::int32_t>{0, 3}));
  EXPECT_EQ(routes.weight, (std::vector<float>{Sigmoid(2), Sigmoid(-1)}));
}

TEST(RouterTest, ForcedExpertsReplaceTheChoiceAndKeepTheWeights) {
  ThreadPool pool(2);
  const RouterShape s{16, 2, 4, 2, true, 2.5f};
  const std::vector<float> logits = Normal(16 * 40, 1), bias = Normal(16, 2);
  const Routes free = Route(logits, 16, bias, s, 40, pool);
  const Routes replay = Route(logits, 16, bias, s, 40, pool, free.ids.data());
  EXPECT_EQ(free.ids, replay.ids);
  EXPECT_TRUE(SameBits(free.weight, replay.weight));
  const std::int32_t forced[] = {3, 15};
  const Routes one = Route(logits, 16, bias, s, 1, pool, forced);
  const float a = Sigmoid(logits[3]), b = Sigmoid(logits[15]), sum = a + b + 1e-20f;
  EXPECT_EQ(one.weight, (std::vector<float>{a / sum * 2.5f, b / sum * 2.5f}));
  const std::int32_t wrong[] = {3, 16};
  EXPECT_THROW(Route(logits, 16, bias, s, 1, pool, wrong), std::logic_error);
}

TEST(RouterTest, BrokenLogitsStillGiveDistinctExperts) {
  ThreadPool pool(1);
  const std::vector<float> logits(8, kNan), bias(8, 0.0f);
  EXPECT_EQ(Route(logits, 8, bias, {8, 3, 2, 1, true, 1.0f}, 1, pool).ids,
            (std::vector<std::int32_t>{0, 1, 2}));
}

TEST(RouterTest, RefusesShapesThatCannotRoute) {
  ThreadPool pool(1);
  const std::vector<float> logits(8), bias(8);
  for (const RouterShape& s :
       {RouterShape{8, 3, 3, 1}, RouterShape{8, 5, 2, 1}, RouterShape{8, 0, 1, 1},
        RouterShape{8, 2, 2, 3}, RouterShape{0, 1, 1, 1}}) {
    EXPECT_THROW(Route(logits, 8, bias, s, 1, pool), std::logic_error);
  }
}

}  // namespace
}  // namespace temper::kernels
