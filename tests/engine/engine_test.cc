#include "engine/engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "configs/error.h"
#include "engine/forward.h"
#include "engine/latent_cache.h"
#include "tests/engine/results.h"
#include "tests/engine/tiny_model.h"

namespace temper::engine {
namespace {

std::vector<std::int32_t> Prompt(std::uint64_t group, int length) {
  std::vector<std::int32_t> ids{0};
  for (int i = 1; i < length; ++i) ids.push_back(std::int32_t((group * 31 + i * 17) % 97 + 3));
  return ids;
}

GroupRequest Group(std::uint64_t group, int prompt, int samples, int max_new = 20) {
  GroupRequest r;
  r.group = group;
  r.prompt = Prompt(group, prompt);
  for (int s = 0; s < samples; ++s) r.samples.push_back(s);
  r.seed = 11;
  r.max_new_tokens = max_new;
  r.stop_ids = {1};
  return r;
}

Results Generate(std::shared_ptr<Weights> weights, const EngineOptions& options,
                 std::vector<GroupRequest> groups) {
  Engine engine(std::move(weights), options);
  for (GroupRequest& g : groups) engine.Add(std::move(g));
  Results results = Finish(engine);
  EXPECT_EQ(engine.live(), 0);
  return results;
}

void ExpectSame(const FinishedSample& a, const FinishedSample& b) {
  EXPECT_EQ(a.ids, b.ids);
  EXPECT_EQ(a.logp, b.logp);
  EXPECT_EQ(a.logp_processed, b.logp_processed);
  EXPECT_EQ(a.log_kept_mass, b.log_kept_mass);
  EXPECT_EQ(a.finish, b.finish);
}

class EngineTest : public testing::TestWithParam<bool> {
 protected:
  std::shared_ptr<Weights> weights_ = TinyWeights(TinyConfig(GetParam()), 5);
  EngineOptions alone_{.threads = 1, .max_rows = 64, .chunk = 512};
};

TEST_P(EngineTest, GivesTheSameSampleAloneAndInAnyBatch) {
  const std::vector<GroupRequest> all = {Group(1, 5, 7), Group(2, 33, 4), Group(3, 1, 9),
                                         Group(4, 300, 2)};
  Results batch = Generate(weights_, {.threads = 2, .max_rows = 13, .chunk = 37}, all);
  ASSERT_EQ(batch.size(), 22u);
  for (const auto& [key, sample] : batch) {
    GroupRequest one;
    for (const GroupRequest& g : all) {
      if (g.group == key.first) one = g;
    }
    one.samples = {key.second};
    ExpectSame(Generate(weights_, alone_, {one}).begin()->second, sample);
  }
}

TEST_P(EngineTest, ChunksThreadsAndBatchRowsChangeNoBit) {
  const std::vector<GroupRequest> all = {Group(1, 70, 3), Group(9, 41, 5)};
  const Results expected = Generate(weights_, alone_, all);
  for (int threads : {1, 2, 3}) {
    for (int chunk : {1, 16, 50, 512}) {
      for (const auto& [key, sample] :
           Generate(weights_, {.threads = threads, .max_rows = 5, .chunk = chunk}, all)) {
        ExpectSame(expected.at(key), sample);
      }
    }
  }
}

TEST_P(EngineTest, LogprobsEqualAFullForwardOverTheFinishedSequence) {
  const Results results = Generate(weights_, alone_, {Group(5, 9, 3)});
  const ModelConfig& c = weights_->config();
  kernels::ThreadPool pool(1);
  Forward forward(*weights_, pool);
  for (const auto& [key, sample] : results) {
    std::vector<std::int32_t> ids = Prompt(5, 9);
    ids.insert(ids.end(), sample.ids.begin(), sample.ids.end());
    LatentCache cache(forward.CacheBytes(c.num_layers));
    LatentRows rows(&cache);
    std::vector<std::int32_t> positions;
    std::vector<std::byte*> latent;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      positions.push_back(std::int32_t(i));
      latent.push_back(rows.Append());
    }
    std::vector<kernels::AttentionRow> attention;
    for (std::size_t i = 0; i < ids.size(); ++i) attention.push_back({rows.keys(), int(i) + 1});
    const int m = int(ids.size());
    std::vector<float> hidden(std::size_t(m) * c.hidden_size),
        logits(std::size_t(m) * c.vocab_size);
    forward.Hidden({m, ids.data(), positions.data(), latent.data(), attention.data()},
                   hidden.data());
    forward.Logits(hidden.data(), m, logits.data());
    std::vector<std::int32_t> target(ids.begin() + 1, ids.end());
    target.push_back(0);
    std::vector<float> logp(m);
    kernels::TokenLogProbs(logits.data(), c.vocab_size, m, c.vocab_size, 1.0f, target.data(),
                           logp.data(), pool);
    for (std::size_t i = 0; i < sample.ids.size(); ++i) {
      EXPECT_EQ(sample.logp[i], logp[8 + i]) << "token " << i;
    }
  }
}

TEST_P(EngineTest, ADifferentWeightChangesTheResult) {  // the comparisons above can fail
  const Results before = Generate(weights_, alone_, {Group(1, 5, 2)});
  std::vector<float> norm(weights_->config().hidden_size, 1.01f);
  weights_->Set("model.norm.weight", norm);
  const Results after = Generate(weights_, alone_, {Group(1, 5, 2)});
  EXPECT_NE(before.begin()->second.logp, after.begin()->second.logp);
}

INSTANTIATE_TEST_SUITE_P(QueryForms, EngineTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "QLora" : "OneProjection"; });

TEST(EngineSampleTest, SamplesOfAGroupDiffer) {
  const Results r = Generate(TinyWeights(TinyConfig(), 5), {}, {Group(1, 5, 8)});
  EXPECT_NE(r.at({1, 0}).ids, r.at({1, 1}).ids);
}

TEST(EngineSampleTest, StopsAtAStopIdAndKeepsIt) {
  auto weights = TinyWeights(TinyConfig(), 5);
  GroupRequest g = Group(1, 5, 1, 50);
  g.stop_ids = {};
  const FinishedSample free = Generate(weights, {}, {g}).begin()->second;
  EXPECT_EQ(free.finish, FinishReason::kLength);
  ASSERT_EQ(free.ids.size(), 50u);
  g.stop_ids = {free.ids[7]};
  const FinishedSample stopped = Generate(weights, {}, {g}).begin()->second;
  EXPECT_EQ(stopped.finish, FinishReason::kStop);
  EXPECT_EQ(stopped.ids.back(), free.ids[7]);
  EXPECT_LE(stopped.ids.size(), 8u);
}

TEST(EngineSampleTest, NeverSamplesAnIdPastTheTokenizer) {
  const Results r =
      Generate(TinyWeights(TinyConfig(), 5), {.valid_ids = 20}, {Group(1, 5, 16, 40)});
  int lost_mass = 0;
  for (const auto& [key, sample] : r) {
    for (std::size_t i = 0; i < sample.ids.size(); ++i) {
      EXPECT_LT(sample.ids[i], 20);
      EXPECT_LE(sample.log_kept_mass[i], 0.0f);
      lost_mass += sample.log_kept_mass[i] < -1e-3f;
    }
  }
  EXPECT_GT(lost_mass, 100);  // the mass past the tokenizer counts as not kept
}

TEST(EngineSampleTest, ACancelledGroupIsNotReported) {
  Engine engine(TinyWeights(TinyConfig(), 5), {});
  engine.Add(Group(1, 5, 3));
  engine.Add(Group(2, 5, 3));
  std::vector<FinishedSample> done;
  engine.Step(&done);
  engine.Cancel(1);
  while (engine.Step(&done)) {
  }
  EXPECT_EQ(done.size(), 3u);
  for (const FinishedSample& s : done) EXPECT_EQ(s.group, 2u);
}

TEST(EngineSampleTest, RefusesWhatTheModelCannotTake) {
  Engine engine(TinyWeights(TinyConfig(), 5), {});
  GroupRequest g = Group(1, 5, 1);
  g.prompt = {};
  EXPECT_THROW(engine.Add(g), UserError);
  g.prompt = {101};
  EXPECT_THROW(engine.Add(g), UserError);
  g.prompt = {-1};
  EXPECT_THROW(engine.Add(g), UserError);
  g = Group(1, 2000, 1, 49);
  EXPECT_THROW(engine.Add(g), UserError);
}

}  // namespace
}  // namespace temper::engine
