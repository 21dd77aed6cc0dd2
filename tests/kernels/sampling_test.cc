#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <stdexcept>

#include "kernels/math.h"
#include "tests/kernels/testing.h"

namespace temper::kernels {
namespace {

float RowLse(const std::vector<float>& x, float temperature) {
  ThreadPool pool(1);
  float lse;
  LogSumExp(x.data(), std::int64_t(x.size()), 1, int(x.size()), temperature, &lse, pool);
  return lse;
}

TEST(PhiloxTest, GivesTheKnownAnswersOfRandom123) {
  using Four = std::array<std::uint32_t, 4>;
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}), (Four{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t f = 0xffffffff;
  EXPECT_EQ(Philox({f, f, f, f}, {f, f}), (Four{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Four{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, TheUniformNamesSeedGroupSampleAndPosition) {
  EXPECT_EQ(SampleUniform(0, 0, 0, 0), float(0x6627e8d5u >> 8) / 16777216.0f);
  const std::uint64_t seed = 0x299f31d0a4093822ull, group = 0x0370734413198a2eull;
  EXPECT_EQ(SampleUniform(seed, group, 0x85a308d3, 0x243f6a88),
            float(0xd16cfe09u >> 8) / 16777216.0f);
  double sum = 0;
  for (std::uint32_t i = 0; i < 10000; ++i) {
    const float u = SampleUniform(7, 3, 1, i);
    ASSERT_GE(u, 0.0f);
    ASSERT_LT(u, 1.0f);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.015);
}

TEST(LogSumExpTest, EveryVariantAndThreadCountAgreesNearTheTruth) {
  for (int v : {1, 15, 16, 17, 264, 1023, 1024, 1025, 5000, 20000}) {
    for (int m : {0, 1, 2, 30}) {
      for (float temperature : {1.0f, 0.7f, 3.0f}) {
        const int ld = v + 2;
        std::vector<float> logits = Normal(std::size_t(m) * ld, v, 5.0f);
        for (int r = 0; r < m; ++r) logits[r * ld + v] = logits[r * ld + v + 1] = kNan;
        std::vector<std::int32_t> target;
        for (int r = 0; r < m; ++r) target.push_back(r * 31 % v);
        std::vector<std::vector<float>> want;
        for (Isa isa : Variants()) {
          const WithIsa with(isa);
          for (int threads : {1, 2, 3}) {
            ThreadPool pool(threads);
            std::vector<float> lse(m), logp(m), entropy(m);
            LogSumExp(logits.data(), ld, m, v, temperature, lse.data(), pool);
            TokenLogProbs(logits.data(), ld, m, v, temperature, target.data(), logp.data(), pool);
            Entropy(logits.data(), ld, m, v, temperature, entropy.data(), pool);
            if (want.empty()) want = {lse, logp, entropy};
            ASSERT_TRUE(SameBits(want[0], lse)) << IsaName(isa) << " " << threads << " v " << v;
            ASSERT_TRUE(SameBits(want[1], logp)) << IsaName(isa);
            ASSERT_TRUE(SameBits(want[2], entropy)) << IsaName(isa);
          }
        }
        for (int r = 0; r < m; ++r) {
          double most = -1e300, sum = 0, entropy = 0;
          const auto x = [&](int i) { return double(logits[r * ld + i]) / temperature; };
          for (int i = 0; i < v; ++i) most = std::max(most, x(i));
          for (int i = 0; i < v; ++i) sum += std::exp(x(i) - most);
          const double lse = most + std::log(sum);
          for (int i = 0; i < v; ++i) entropy -= std::exp(x(i) - lse) * (x(i) - lse);
          ASSERT_NEAR(want[0][r], lse, 1e-6 * (std::fabs(most) + 1));
          ASSERT_NEAR(want[1][r], x(target[r]) - lse,
                      4e-6 * (std::fabs(x(target[r])) + std::fabs(lse)));
          ASSERT_NEAR(want[2][r], entropy, 1e-5 * (entropy + 1));
        }
      }
    }
  }
}

TEST(LogSumExpTest, RefusesWhatHasNoAnswer) {
  ThreadPool pool(1);
  const float x[2] = {};
  float out;
  const std::int32_t target = 2;
  EXPECT_THROW(LogSumExp(x, 2, 1, 2, 0.0f, &out, pool), std::logic_error);
  EXPECT_THROW(LogSumExp(x, 2, 1, 2, kNan, &out, pool), std::logic_error);
  EXPECT_THROW(LogSumExp(x, 2, 1, 0, 1.0f, &out, pool), std::logic_error);
  EXPECT_THROW(TokenLogProbs(x, 2, 1, 2, 1.0f, &target, &out, pool), std::logic_error);
}

/// The rule by complete sorting.
SampledToken Reference(const std::vector<float>& logits, int valid, const SampleParams& params,
                       float u) {
  const bool greedy = params.temperature == 0;
  const float temperature = greedy ? 1.0f : params.temperature;
  const float lse = RowLse(logits, temperature);
  std::vector<float> x, p;
  for (int i = 0; i < valid; ++i) {
    x.push_back(logits[i] / temperature);
    p.push_back(Exp(x[i] - lse));
  }
  const auto sum = [&](std::vector<int> ids) {
    std::sort(ids.begin(), ids.end());
    float s = 0;
    for (int id : ids) s += p[id];
    return s;
  };
  std::vector<int> ids(valid);
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return x[a] > x[b]; });
  const int largest = ids[0];
  if (params.top_k > 0 && params.top_k < valid) ids.resize(params.top_k);
  if (params.top_p < 1) {
    const float target = params.top_p * sum(ids);
    float s = 0;
    std::size_t n = 0;
    while (n < ids.size() && s < target) s += p[ids[n++]];
    ids.resize(n);
  }
  std::erase_if(ids, [&](int id) { return p[id] < params.min_p * p[largest]; });
  std::sort(ids.begin(), ids.end());
  const float mass = sum(ids);
  SampledToken t;
  t.id = largest;
  float s = 0;
  for (int id : ids) {
    s += p[id];
    if (!greedy && s > u * mass) {
      t.id = id;
      break;
    }
  }
  t.logp = x[t.id] - lse;
  t.log_kept_mass = Log(mass);
  t.logp_processed = t.logp - t.log_kept_mass;
  return t;
}

TEST(SampleTokenTest, AgreesWithTheRuleByCompleteSorting) {
  std::mt19937 random(5);
  for (int round = 0; round < 400; ++round) {
    const int v = round % 5 == 0 ? 3000 : 1 + int(random() % 300);
    std::vector<float> logits = Normal(v, round, 0.5f + float(round % 4));
    if (round % 3 == 0) {
      for (float& l : logits) l = std::round(l);  // ties
    }
    const int valid = round % 2 == 0 ? v : 1 + int(random() % v);
    SampleParams params;
    params.temperature = round % 7 == 0 ? 0.0f : 0.3f + float(random() % 20) / 10.0f;
    if (random() % 2) params.top_k = int(random() % (v + 2));
    if (random() % 2) params.top_p = float(1 + random() % 100) / 100.0f;
    if (random() % 3 == 0) params.min_p = float(random() % 101) / 100.0f;
    for (float u : {0.0f, float(random() >> 8) * 0x1p-24f, 1.0f - 0x1p-24f}) {
      const SampledToken want = Reference(logits, valid, params, u);
      for (Isa isa : Variants()) {
        const WithIsa with(isa);
        const SampledToken got = SampleToken(logits.data(), v, valid, params, u);
        ASSERT_EQ(got.id, want.id) << "round " << round << " u " << u << " " << IsaName(isa);
        ASSERT_TRUE(SameBits({got.logp, got.logp_processed, got.log_kept_mass},
                             {want.logp, want.logp_processed, want.log_kept_mass}));
        ASSERT_LT(got.id, valid);
      }
    }
  }
}

TEST(SampleTokenTest, TopPStopsWhereTheMassIsReachedExactly) {
  const std::vector<float> logits = {1.0f, 1.0f};
  // Each has half of the mass, so the first alone reaches it.
  const SampledToken token = SampleToken(logits.data(), 2, 2, {1.0f, 0, 0.5f}, 0.999f);
  EXPECT_EQ(token.id, 0);
  EXPECT_EQ(token.logp_processed, 0.0f);
}

TEST(SampleTokenTest, AWholeVocabularyAgreesToo) {
  const int v = 129280;
  const std::vector<float> logits = Normal(v, 1, 3.0f);
  for (const SampleParams& params : {SampleParams{}, SampleParams{0.8f, 50, 0.9f, 0.0f},
                                     SampleParams{1.0f, 0, 0.95f, 0.01f}, SampleParams{0.0f}}) {
    for (float u : {0.0f, 0.37f, 0.999f}) {
      const SampledToken want = Reference(logits, 129000, params, u);
      const SampledToken got = SampleToken(logits.data(), v, 129000, params, u);
      EXPECT_EQ(got.id, want.id);
      EXPECT_EQ(got.log_kept_mass, want.log_kept_mass);
    }
  }
}

TEST(SampleTokenTest, DrawsTokensAsOftenAsTheirProbability) {
  const std::vector<float> logits = Normal(24, 3, 1.5f);
  const float lse = RowLse(logits, 1.0f);
  const int draws = 40000;
  std::map<int, int> count;
  for (std::uint32_t i = 0; i < draws; ++i) {
    ++count[SampleToken(logits.data(), 24, 24, {}, SampleUniform(11, 5, 0, i)).id];
  }
  double chi2 = 0;
  for (int i = 0; i < 24; ++i) {
    const double expected = draws * std::exp(double(logits[i]) - lse);
    chi2 += (count[i] - expected) * (count[i] - expected) / expected;
  }
  EXPECT_LT(chi2, 49.7);  // 23 degrees of freedom, one in a thousand; the stream is fixed
}

TEST(SampleTokenTest, GreedyTakesTheFirstOfTheLargestValid) {
  const std::vector<float> logits = {1, 5, 3, 5, 9};
  const SampledToken token = SampleToken(logits.data(), 5, 4, {0.0f}, 0.9f);
  EXPECT_EQ(token.id, 1);
  EXPECT_EQ(token.logp, 5.0f - RowLse(logits, 1.0f));
  EXPECT_LT(token.log_kept_mass, -3.0f);  // most of the mass is past the tokenizer
}

TEST(SampleTokenTest, MassThatUnderflowsFallsBackToTheLargest) {
  const std::vector<float> logits = {-200, -150, -160, 100};
  const SampledToken token = SampleToken(logits.data(), 4, 3, {}, 0.5f);
  EXPECT_EQ(token.id, 1);
  EXPECT_EQ(token.logp, -250.0f);
}

TEST(SampleTokenTest, RefusesParametersOutOfRange) {
  const float x[4] = {};
  for (const SampleParams& params :
       {SampleParams{-1.0f}, SampleParams{1.0f, -1}, SampleParams{1.0f, 0, 0.0f},
        SampleParams{1.0f, 0, 1.1f}, SampleParams{1.0f, 0, 1.0f, -0.1f}, SampleParams{kNan},
        SampleParams{1.0f, 0, kNan}}) {
    EXPECT_THROW(SampleToken(x, 4, 4, params, 0.5f), std::logic_error);
  }
  EXPECT_THROW(SampleToken(x, 4, 0, {}, 0.5f), std::logic_error);
  EXPECT_THROW(SampleToken(x, 4, 5, {}, 0.5f), std::logic_error);
}

TEST(SampleTokenTest, TheKeptIdsHaveTheMassThatTheSamplerSays) {
  std::mt19937_64 rng(17);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  for (int v : {1, 7, 1000, 5000}) {
    std::vector<float> logits(v);
    for (float& x : logits) x = normal(rng);
    for (const SampleParams& params :
         {SampleParams{1.0f, 0, 0.9f, 0.0f}, SampleParams{0.7f, 5, 1.0f, 0.0f},
          SampleParams{1.3f, 50, 0.8f, 0.05f}, SampleParams{1.0f, 0, 1.0f, 0.0f}}) {
      for (int valid : {v, std::max(1, v - 3)}) {
        const SampledToken token = SampleToken(logits.data(), v, valid, params, 0.5f);
        std::vector<std::int32_t> kept;
        KeptIds(logits.data(), v, valid, params, &kept);
        ASSERT_FALSE(kept.empty());
        EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end()));
        EXPECT_LT(kept.back(), valid);
        EXPECT_TRUE(std::binary_search(kept.begin(), kept.end(), token.id));
        if (params.top_k > 0) {
          EXPECT_LE(int(kept.size()), params.top_k);
        }
        ThreadPool pool(1);
        float lse = 0;
        LogSumExp(logits.data(), v, 1, v, params.temperature, &lse, pool);
        EXPECT_EQ(LogKeptMass(logits.data(), params.temperature, lse, kept), token.log_kept_mass);
      }
    }
  }
}

}  // namespace
}  // namespace temper::kernels
