#include "learner/core/balance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

namespace temper::learner {
namespace {

using kernels::RouterMethod;

struct Case {
  RouterMethod method;
  BalanceWeights weights;
};

/// Two sequences over eight experts in four groups, three experts in two groups a token.
class BalanceTest : public testing::TestWithParam<Case> {
 protected:
  BalanceTest() {
    shape_.experts = 8;
    shape_.top_k = 3;
    shape_.groups = 4;
    shape_.topk_groups = 2;
    shape_.method = GetParam().method;
    pack_.Add(std::vector<std::int32_t>(5));
    pack_.Add(std::vector<std::int32_t>{});
    pack_.Add(std::vector<std::int32_t>(9));
    std::mt19937 rng(3);
    std::normal_distribution<float> normal;
    for (int i = 0; i < 14 * 8; ++i) logits_.push_back(normal(rng));
    for (int t = 0; t < 14; ++t) {
      std::vector<std::int32_t> all = {0, 1, 2, 3, 4, 5, 6, 7};
      std::shuffle(all.begin(), all.end(), rng);
      std::sort(all.begin(), all.begin() + 3);
      ids_.insert(ids_.end(), all.begin(), all.begin() + 3);
    }
  }

  /// By the papers' words, in double.
  double Want(const std::vector<double>& logits) const {
    const BalanceWeights& w = GetParam().weights;
    double loss = 0;
    for (const auto& [first, n] : {std::pair{0, 5}, {5, 9}}) {
      std::vector<double> f(8), p(8), sent(4);
      for (int t = first; t < first + n; ++t) {
        std::vector<double> s(8);
        double sum = 0;
        for (int e = 0; e < 8; ++e) {
          const double x = logits[t * 8 + e];
          s[e] = GetParam().method == RouterMethod::kNoauxTc ? 1 / (1 + std::exp(-x)) : std::exp(x);
          sum += s[e];
        }
        for (int e = 0; e < 8; ++e) p[e] += s[e] / sum / n;
        std::set<int> groups;
        for (int j = 0; j < 3; ++j) {
          f[ids_[t * 3 + j]] += 8.0 / (3 * n);
          groups.insert(ids_[t * 3 + j] / 2);
        }
        for (int d : groups) sent[d] += 4.0 / (2 * n);
      }
      for (int e = 0; e < 8; ++e) loss += w.expert * f[e] * p[e];
      for (int d = 0; d < 4; ++d) {
        const double of_group = p[2 * d] + p[2 * d + 1];
        loss += w.device * (f[2 * d] + f[2 * d + 1]) / 2 * of_group;
        loss += w.communication * sent[d] * of_group;
      }
    }
    return loss / w.sequences;
  }

  kernels::RouterShape shape_;
  Pack pack_;
  std::vector<float> logits_;
  std::vector<std::int32_t> ids_;
};

TEST_P(BalanceTest, IsThePapersLossAndItsSlope) {
  std::vector<float> d(logits_.size(), 0.5f);
  const BalanceWeights& w = GetParam().weights;
  const double loss = AddBalanceGradient(w, shape_, pack_, ids_.data(), logits_.data(), d.data());
  std::vector<double> at(logits_.begin(), logits_.end());
  EXPECT_NEAR(loss, Want(at), 1e-6 * Want(at));
  EXPECT_EQ(loss, AddBalanceGradient(w, shape_, pack_, ids_.data(), logits_.data(), nullptr));
  constexpr double kStep = 1e-5;
  for (std::size_t i = 0; i < at.size(); ++i) {
    const double x = at[i];
    at[i] = x + kStep;
    const double up = Want(at);
    at[i] = x - kStep;
    const double slope = (up - Want(at)) / (2 * kStep);
    at[i] = x;
    EXPECT_NEAR(double(d[i]) - 0.5, slope, 1e-6) << i;
  }
}

TEST_P(BalanceTest, AnEvenLoadHasTheSmallestLoss) {
  // Each expert three times in eight tokens, each with its own expert preferred evenly.
  Pack pack;
  pack.Add(std::vector<std::int32_t>(8));
  std::vector<std::int32_t> even, uneven;
  std::vector<float> flat(64, 0.0f), peaked(64, 0.0f);
  for (int t = 0; t < 8; ++t) {
    std::vector<std::int32_t> chosen = {t, (t + 1) % 8, (t + 2) % 8};
    std::sort(chosen.begin(), chosen.end());
    even.insert(even.end(), chosen.begin(), chosen.end());
    uneven.insert(uneven.end(), {0, 1, 2});
    for (int e = 0; e < 3; ++e) peaked[t * 8 + e] = 2;
  }
  const BalanceWeights& w = GetParam().weights;
  EXPECT_LT(AddBalanceGradient(w, shape_, pack, even.data(), flat.data(), nullptr),
            AddBalanceGradient(w, shape_, pack, uneven.data(), peaked.data(), nullptr));
}

TEST_P(BalanceTest, ABranchIsASequenceWithItsTrunk) {
  // Two completions of one prompt, once as two whole sequences, once behind a common trunk.
  constexpr int kPrompt = 4, kFirst = 3, kSecond = 5;
  const auto rows = [&](auto* to, const auto& from, int first, int count, int width) {
    to->insert(to->end(), from.begin() + first * width, from.begin() + (first + count) * width);
  };
  Pack apart, shared;
  apart.Add(std::vector<std::int32_t>(kPrompt + kFirst));
  apart.Add(std::vector<std::int32_t>(kPrompt + kSecond));
  const int trunk = shared.Add(std::vector<std::int32_t>(kPrompt));
  shared.AddBranch(trunk, std::vector<std::int32_t>(kFirst));
  shared.AddBranch(trunk, std::vector<std::int32_t>(kSecond));
  std::vector<float> logits;
  std::vector<std::int32_t> ids;
  for (const auto& [first, count] :
       {std::pair{0, kPrompt + kFirst}, {0, kPrompt}, {kPrompt + kFirst, kSecond}}) {
    rows(&logits, logits_, first, count, 8);
    rows(&ids, ids_, first, count, 3);
  }
  std::vector<float> d_apart(logits.size(), 0.0f),
      d_shared(std::size_t(kPrompt + kFirst + kSecond) * 8, 0.0f);
  const BalanceWeights& w = GetParam().weights;
  const double a = AddBalanceGradient(w, shape_, apart, ids.data(), logits.data(), d_apart.data());
  const double b =
      AddBalanceGradient(w, shape_, shared, ids_.data(), logits_.data(), d_shared.data());
  EXPECT_NEAR(a, b, 1e-12);
  for (int t = 0; t < kPrompt + kFirst + kSecond; ++t) {
    for (int e = 0; e < 8; ++e) {
      double want = d_apart[(t < kPrompt + kFirst ? t : t + kPrompt) * 8 + e];
      if (t < kPrompt) want += d_apart[(kPrompt + kFirst + t) * 8 + e];
      EXPECT_NEAR(d_shared[t * 8 + e], want, 1e-7) << t << " " << e;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, BalanceTest,
                         testing::Values(Case{RouterMethod::kGreedy, {1, 0, 0, 2}},
                                         Case{RouterMethod::kGroupLimitedGreedy, {0, 1, 0, 2}},
                                         Case{RouterMethod::kGroupLimitedGreedy, {0, 0, 1, 3}},
                                         Case{RouterMethod::kGroupLimitedGreedy,
                                              {0.3, 0.5, 0.2, 1}},
                                         Case{RouterMethod::kNoauxTc, {1, 0, 0, 2}},
                                         Case{RouterMethod::kNoauxTc, {0.5, 0.2, 0.1, 2}}));

}  // namespace
}  // namespace temper::learner
