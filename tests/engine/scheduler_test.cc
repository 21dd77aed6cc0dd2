// What the scheduler may do behind a sample's back, and that none of it changes a bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "configs/error.h"
#include "engine/engine.h"
#include "engine/forward.h"
#include "engine/latent_cache.h"
#include "engine/prefix_tree.h"
#include "engine/speculation.h"
#include "tests/engine/results.h"
#include "tests/engine/tiny_model.h"

namespace temper::engine {
namespace {

GroupRequest Group(std::uint64_t group, std::vector<std::int32_t> prompt, int samples,
                   int max_new = 40) {
  GroupRequest r;
  r.group = group;
  r.prompt = std::move(prompt);
  for (int s = 0; s < samples; ++s) r.samples.push_back(s);
  r.seed = 3;
  r.max_new_tokens = max_new;
  r.stop_ids = {1};
  return r;
}

std::vector<std::int32_t> Ids(int seed, int length) {
  std::vector<std::int32_t> ids{0};
  for (int i = 1; i < length; ++i) ids.push_back((seed * 37 + i * 13 + i * i) % 97 + 3);
  return ids;
}

std::vector<GroupRequest> Mixture() {
  return {Group(1, Ids(1, 60), 3), Group(2, Ids(2, 5), 6, 70), Group(3, Ids(3, 33), 4),
          Group(4, Ids(4, 1), 2), Group(5, Ids(1, 60), 2)};
}

struct Ran {
  Results results;
  EngineStats stats;
};

Ran Drive(Engine& engine, std::vector<GroupRequest> groups) {
  for (GroupRequest& g : groups) engine.Add(std::move(g));
  Ran ran;
  ran.results = Finish(engine);
  ran.stats = engine.stats();
  return ran;
}

Ran Drive(std::shared_ptr<Weights> weights, const EngineOptions& options,
          std::vector<GroupRequest> groups) {
  Engine engine(std::move(weights), options);
  return Drive(engine, std::move(groups));
}

void ExpectSame(const Results& a, const Results& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [key, sample] : a) {
    const FinishedSample& other = b.at(key);
    EXPECT_EQ(sample.ids, other.ids);
    EXPECT_EQ(sample.logp, other.logp);
    EXPECT_EQ(sample.logp_processed, other.logp_processed);
    EXPECT_EQ(sample.log_kept_mass, other.log_kept_mass);
    EXPECT_EQ(sample.finish, other.finish);
    EXPECT_EQ(sample.experts, other.experts);
  }
}

EngineOptions Plain() {
  EngineOptions o;
  o.prefix_tokens = 0;
  o.speculation = Speculation::kOff;
  return o;
}

/// One token has nearly all the mass everywhere, so that the MTP layers guess right often.
std::shared_ptr<Weights> Predictable(float bias, int mtp_layers = 1) {
  const ModelConfig config = TinyConfig(true, mtp_layers);
  auto weights = TinyWeights(config, 5);
  std::vector<float> norm(config.hidden_size, 0.02f);
  norm[0] = bias;
  weights->Set("model.norm.weight", norm);
  for (int j = 0; j < mtp_layers; ++j)
    weights->Set("model.layers." + std::to_string(3 + j) + ".shared_head.norm.weight", norm);
  return weights;
}

TEST(SchedulerTest, PagesThatRunOutCostTimeAndNoBit) {
  auto weights = TinyWeights(TinyConfig(), 5);
  const Ran free = Drive(weights, Plain(), Mixture());
  EXPECT_EQ(free.stats.preempted, 0u);
  for (int tokens : {112, 160, 320}) {
    for (int chunk : {7, 512}) {
      EngineOptions o = Plain();
      o.cache_tokens = tokens;
      o.chunk = chunk;
      o.threads = 2;
      const Ran tight = Drive(weights, o, Mixture());
      EXPECT_GT(tight.stats.preempted, 0u) << tokens;
      EXPECT_GT(tight.stats.computed, free.stats.computed);
      ExpectSame(free.results, tight.results);
      o.prefix_tokens = 1024;
      o.speculation = Speculation::kAlways;
      ExpectSame(free.results, Drive(weights, o, Mixture()).results);
    }
  }
}

TEST(SchedulerTest, PromptsThatBeginAlikeAreComputedOnce) {
  auto weights = TinyWeights(TinyConfig(), 5);
  std::vector<std::int32_t> longer = Ids(1, 60);
  longer.insert(longer.end(), {7, 8, 9});
  const std::vector<GroupRequest> second = {Group(7, longer, 3), Group(8, Ids(1, 48), 2),
                                            Group(9, Ids(6, 50), 2)};
  const Ran cold = Drive(weights, Plain(), second);
  for (Speculation speculation : {Speculation::kOff, Speculation::kAlways}) {
    EngineOptions o;
    o.speculation = speculation;
    Engine engine(weights, o);
    Drive(engine, {Group(1, Ids(1, 60), 3)});
    const std::uint64_t before = engine.stats().prefix_hits;
    const Ran warm = Drive(engine, second);
    EXPECT_EQ(warm.stats.prefix_hits - before, 48u + 32u);
    ExpectSame(cold.results, warm.results);
  }
}

TEST(SchedulerTest, AGroupCostsOnePromptAndItsTails) {
  constexpr int kPage = LatentCache::kPageTokens, kPrompt = 100, kSamples = 32, kNew = 20;
  GroupRequest group = Group(1, Ids(1, kPrompt), kSamples, kNew);
  group.stop_ids.clear();
  EngineOptions options = Plain();
  options.max_rows = kSamples;
  const Ran ran = Drive(TinyWeights(TinyConfig(), 5), options, {group});
  // The last token sampled is never computed.
  EXPECT_EQ(ran.stats.computed, kPrompt + kSamples * (kNew - 1));
  const int prompt_pages = (kPrompt + kPage - 1) / kPage, tail_pages = (kNew + kPage - 1) / kPage;
  EXPECT_LE(ran.stats.cache_tokens, std::uint64_t(prompt_pages + kSamples * tail_pages) * kPage);
  EXPECT_GE(ran.stats.cache_tokens, std::uint64_t(kPrompt + kSamples * (kNew - 1)));
}

TEST(SchedulerTest, ASampleGoesOnFromAnyOfItsTokens) {
  const auto weights = TinyWeights(TinyConfig(), 5);
  GroupRequest whole = Group(7, Ids(2, 20), 3, 30);
  whole.stop_ids.clear();
  const FinishedSample sample = Drive(weights, Plain(), {whole}).results.at({7, 2});
  for (std::uint32_t begun : {1u, 13u, 29u}) {
    GroupRequest rest = whole;
    rest.samples = {2};
    rest.begun = begun;
    rest.prompt.insert(rest.prompt.end(), sample.ids.begin(), sample.ids.begin() + begun);
    rest.max_new_tokens = 30 - int(begun);
    const FinishedSample found = Drive(weights, Plain(), {rest}).results.at({7, 2});
    EXPECT_TRUE(std::equal(found.ids.begin(), found.ids.end(), sample.ids.begin() + begun,
                           sample.ids.end()));
    EXPECT_TRUE(std::equal(found.logp.begin(), found.logp.end(), sample.logp.begin() + begun,
                           sample.logp.end()));
  }
}

TEST(SchedulerTest, APrefixOfFormerWeightsIsNotUsed) {
  auto weights = TinyWeights(TinyConfig(), 5);
  Engine engine(weights, {});
  Drive(engine, {Group(1, Ids(1, 60), 3)});
  weights->Set("model.norm.weight", std::vector<float>(weights->config().hidden_size, 1.01f));
  engine.SetVersion(1);
  const Ran after = Drive(engine, {Group(2, Ids(1, 60), 3)});
  EXPECT_EQ(after.stats.prefix_hits, 0u);
  ExpectSame(Drive(weights, Plain(), {Group(2, Ids(1, 60), 3)}).results, after.results);
}

TEST(SchedulerTest, DraftsChangeNoBitAtAnyTemperature) {
  int accepted = 0;
  const std::pair<float, int> kModels[] = {{0.02f, 1}, {1.0f, 1}, {3.0f, 1}, {0.5f, 2}, {3.0f, 3}};
  for (const auto& [bias, mtp_layers] : kModels) {
    auto weights = Predictable(bias, mtp_layers);
    for (float temperature : {0.0f, 0.7f, 1.0f}) {
      std::vector<GroupRequest> groups = Mixture();
      for (GroupRequest& g : groups) {
        g.params.temperature = temperature;
        g.stop_ids = {1, 17};
      }
      const Ran plain = Drive(weights, Plain(), groups);
      EXPECT_EQ(plain.stats.drafted, 0u);
      EngineOptions o = Plain();
      o.speculation = Speculation::kAlways;
      for (int chunk : {9, 512}) {
        o.chunk = chunk;
        const Ran drafted = Drive(weights, o, groups);
        EXPECT_GT(drafted.stats.drafted, 0u);
        EXPECT_LE(drafted.stats.accepted, drafted.stats.drafted);
        accepted += int(drafted.stats.accepted);
        ExpectSame(plain.results, drafted.results);
      }
    }
  }
  EXPECT_GT(accepted, 500);  // both ways of a draft were taken
}

/// What each MTP layer guesses greedily for each position, given the whole text; -1 for the first
/// ones, of which it knows nothing.
std::vector<std::vector<std::int32_t>> Guesses(const Weights& weights,
                                               const std::vector<std::int32_t>& ids) {
  const ModelConfig& c = weights.config();
  const int t = int(ids.size());
  kernels::ThreadPool pool(1);
  Forward forward(weights, pool);
  const auto forward_rows = [&](int layers, const std::int32_t* tokens, int m, auto run) {
    LatentCache cache(forward.CacheBytes(layers));
    LatentRows rows(&cache);
    std::vector<std::int32_t> positions;
    std::vector<std::byte*> latent;
    for (int i = 0; i < m; ++i) positions.push_back(i), latent.push_back(rows.Append());
    std::vector<kernels::AttentionRow> attention;
    for (int i = 0; i < m; ++i) attention.push_back({rows.keys(), i + 1});
    run(ForwardRows{m, tokens, positions.data(), latent.data(), attention.data()});
  };
  std::vector<float> hidden(std::size_t(t) * c.hidden_size), out(hidden.size()),
      logits(std::size_t(t) * c.vocab_size);
  forward_rows(c.num_layers, ids.data(), t,
               [&](const ForwardRows& rows) { forward.Hidden(rows, hidden.data()); });
  std::vector<std::vector<std::int32_t>> guesses;
  for (int j = 0; j < c.mtp_layers; ++j) {
    const int m = t - 1 - j;
    forward_rows(1, ids.data() + 1 + j, m,
                 [&](const ForwardRows& rows) { forward.Mtp(j, rows, hidden.data(), out.data()); });
    forward.Logits(out.data(), m, logits.data());
    guesses.emplace_back(2 + j, -1);
    for (int i = 0; i < m; ++i) {
      const float* row = logits.data() + std::int64_t(i) * c.vocab_size;
      guesses[j].push_back(std::int32_t(std::max_element(row, row + c.vocab_size) - row));
    }
    hidden.swap(out);
  }
  return guesses;
}

// Where the drafts before it held, a layer has seen the very text.
TEST(SchedulerTest, DraftsAreTheGuessesOfTheMtpLayersOverTheWholeText) {
  const std::pair<float, int> kModels[] = {{1.0f, 1}, {30.0f, 1}, {1.0f, 2}, {30.0f, 2}, {2.0f, 3}};
  for (const auto& [bias, mtp_layers] : kModels) {
    auto weights = Predictable(bias, mtp_layers);
    for (int chunk : {1, 6, 512}) {
      EngineOptions o = Plain();
      o.speculation = Speculation::kAlways;
      o.chunk = chunk;
      GroupRequest group = Group(1, Ids(1, 20), 1, 60);
      group.params.temperature = 0;
      group.stop_ids = {};
      const Ran drafted = Drive(weights, o, {group});
      std::vector<std::int32_t> text = group.prompt;
      const std::vector<std::int32_t>& ids = drafted.results.begin()->second.ids;
      text.insert(text.end(), ids.begin(), ids.end());
      const auto guesses = Guesses(*weights, text);
      std::uint64_t tried = 0, held = 0;
      for (int n = 1; 60 - n >= 2;) {
        const int drafts = std::min(mtp_layers, 60 - n - 1);
        int good = 0;
        while (good < drafts && guesses[good][20 + n + good] == ids[n + good]) ++good;
        tried += drafts;
        held += good;
        n += good + 1;
      }
      EXPECT_EQ(drafted.stats.drafted, tried) << bias;
      EXPECT_EQ(drafted.stats.accepted, held) << bias;
      EXPECT_GT(held, 0u);
    }
  }
}

TEST(SchedulerTest, DraftsAreAsGoodBehindAPrefixThatWasThereAlready) {
  for (int mtp_layers : {1, 3}) {
    auto weights = Predictable(2.0f, mtp_layers);
    GroupRequest group = Group(1, Ids(1, 60), 1, 60);
    group.params.temperature = 0;
    group.stop_ids = {};
    EngineOptions o = Plain();
    o.speculation = Speculation::kAlways;
    for (int chunk : {9, 512}) {
      o.chunk = chunk;
      o.prefix_tokens = 0;
      const Ran fresh = Drive(weights, o, {group});
      o.prefix_tokens = 1024;
      Engine engine(weights, o);
      Drive(engine, {group});
      const EngineStats first = engine.stats();
      group.group = 1;
      const Ran again = Drive(engine, {group});
      EXPECT_EQ(again.stats.prefix_hits, 48u);
      ExpectSame(fresh.results, again.results);
      EXPECT_EQ(again.stats.drafted - first.drafted, fresh.stats.drafted) << mtp_layers;
      EXPECT_EQ(again.stats.accepted - first.accepted, fresh.stats.accepted) << mtp_layers;
    }
  }
}

TEST(SchedulerTest, UpdatesRecomputeKeepOrDrop) {
  std::shared_ptr<Weights> weights;
  const auto run = [&](CachePolicy policy) {
    weights = TinyWeights(TinyConfig(), 5);
    Engine engine(weights, {});
    GroupRequest g = Group(1, Ids(1, 20), 2, 12);
    g.params.temperature = 0;
    g.stop_ids = {};
    engine.Add(g);
    std::vector<FinishedSample> done;
    for (int i = 0; i < 5; ++i) engine.Step(&done);
    weights->Set("model.layers.0.self_attn.kv_a_layernorm.weight",
                 std::vector<float>(weights->config().kv_lora_rank, 1.5f));
    engine.SetVersion(4, policy);
    while (engine.Step(&done)) {
    }
    EXPECT_EQ(done.size(), 2u);
    return done[0];
  };
  EXPECT_EQ(run(CachePolicy::kDrop).finish, FinishReason::kCancelled);
  const FinishedSample kept = run(CachePolicy::kKeep), s = run(CachePolicy::kRecompute);
  EXPECT_NE(s.logp, kept.logp);
  ASSERT_EQ(s.ids.size(), 12u);
  EXPECT_EQ(s.versions.front(), 0u);
  EXPECT_EQ(s.versions.back(), 4u);
  // From the update on, the tokens are those of the new weights on the text so far.
  const auto old = std::count(s.versions.begin(), s.versions.end(), 0u);
  GroupRequest rest = Group(1, Ids(1, 20), 1, int(12 - old));
  rest.params.temperature = 0;
  rest.stop_ids = {};
  rest.prompt.insert(rest.prompt.end(), s.ids.begin(), s.ids.begin() + old);
  const FinishedSample fresh = Drive(weights, Plain(), {rest}).results.begin()->second;
  EXPECT_EQ(fresh.ids, std::vector<std::int32_t>(s.ids.begin() + old, s.ids.end()));
  EXPECT_EQ(fresh.logp, std::vector<float>(s.logp.begin() + old, s.logp.end()));
}

TEST(SchedulerTest, ReportsTheExpertsOfEveryTokenInAnyBatch) {
  auto weights = TinyWeights(TinyConfig(), 5);
  std::vector<GroupRequest> groups = Mixture();
  for (GroupRequest& g : groups) g.experts = true;
  const Ran plain = Drive(weights, Plain(), groups);
  for (const auto& [key, s] : plain.results) {
    const std::size_t prompt = groups[key.first - 1].prompt.size();
    ASSERT_EQ(s.experts.size(), (prompt + s.ids.size() - 1) * 2 * 3);
    for (std::size_t i = 0; i < s.experts.size(); ++i) {
      EXPECT_LT(s.experts[i], 8);
      if (i % 3 != 0) {
        EXPECT_GT(s.experts[i], s.experts[i - 1]);
      }
    }
  }
  EngineOptions o;
  o.cache_tokens = 160;
  o.chunk = 11;
  o.speculation = Speculation::kAlways;
  ExpectSame(plain.results, Drive(weights, o, groups).results);
}

TEST(SchedulerTest, ReportsTheIdsThatEachTokenWasSampledFrom) {
  auto weights = TinyWeights(TinyConfig(), 5);
  std::vector<GroupRequest> groups = Mixture();
  for (GroupRequest& g : groups) {
    g.kept = true;
    g.params.temperature = 1;
    g.params.top_k = 5;
  }
  const Ran plain = Drive(weights, Plain(), groups);
  for (const auto& [key, s] : plain.results) {
    std::size_t at = 0;
    for (const std::int32_t id : s.ids) {
      ASSERT_LT(at, s.kept.size());
      const auto first = s.kept.begin() + std::ptrdiff_t(at) + 1, end = first + s.kept[at];
      EXPECT_EQ(s.kept[at], 5);
      EXPECT_TRUE(std::is_sorted(first, end));
      EXPECT_TRUE(std::binary_search(first, end, id));
      at += 1 + std::size_t(s.kept[at]);
    }
    EXPECT_EQ(at, s.kept.size());
  }
  EngineOptions o;
  o.cache_tokens = 160;
  o.speculation = Speculation::kAlways;
  const Ran drafted = Drive(weights, o, groups);
  for (const auto& [key, s] : plain.results) EXPECT_EQ(s.kept, drafted.results.at(key).kept);
}

TEST(SchedulerTest, RefusesWhatCannotFitTheCacheAndFreesWhatIsCancelled) {
  auto weights = TinyWeights(TinyConfig(), 5);
  EngineOptions o;
  o.cache_tokens = 64;
  Engine engine(weights, o);
  EXPECT_THROW(engine.Add(Group(1, Ids(1, 40), 1, 40)), UserError);
  for (std::uint64_t g = 0; g < 20; ++g) {
    engine.Add(Group(g, Ids(int(g), 30), 2, 30));
    std::vector<FinishedSample> done;
    for (int i = 0; i < 3; ++i) engine.Step(&done);
    engine.Cancel(g);
    EXPECT_EQ(engine.live(), 0);
  }
  EXPECT_EQ(Drive(engine, {Group(30, Ids(3, 30), 2, 30)}).results.size(), 2u);
}

TEST(LatentRowsTest, RowsTakenBackAcrossPagesAreGivenAgain) {
  LatentCache cache(8);
  LatentRows rows(&cache);
  std::vector<std::byte*> places;
  for (int i = 0; i < 40; ++i) places.push_back(rows.Append());
  LatentRows fork = rows.Fork();
  for (LatentRows* of : {&rows, &fork}) {
    const int kept = of == &rows ? 0 : 40;
    std::vector<std::byte*> own;
    for (int i = of->size(); i < 80; ++i) own.push_back(of->Append());
    for (int size : {79, 50, 47, kept + 16, kept + 1, kept}) {
      of->Truncate(size);
      for (int i = size; i < 80; ++i) {
        std::byte* want = i < 80 - int(own.size()) ? places[i] : own[i - (80 - own.size())];
        ASSERT_EQ(of->Append(), want) << size << " " << i;
      }
    }
  }
  EXPECT_EQ(cache.used_pages(), 5 + 3);
}

TEST(PrefixTreeTest, EvictsTheLeastRecentlyUsedLeaf) {
  LatentCache cache(1);
  PrefixTree tree(2);
  const auto none = [](int) { return std::span<const float>(); };
  const auto insert = [&](int seed) {
    LatentRows rows(&cache);
    for (int i = 0; i < 16; ++i) rows.Append();
    tree.Insert(Ids(seed, 16), rows, none);
  };
  const auto holds = [&](int seed) {
    LatentRows rows(&cache);
    return tree.Find(Ids(seed, 16), &rows).tokens == 16 && rows.size() == 16;
  };
  insert(1);
  insert(2);
  EXPECT_TRUE(holds(1));
  insert(3);
  EXPECT_TRUE(holds(1));
  EXPECT_FALSE(holds(2));
  EXPECT_TRUE(holds(3));
  EXPECT_EQ(cache.used_pages(), 2);
  tree.Clear();
  EXPECT_EQ(cache.used_pages(), 0);
}

TEST(SpeculationRuleTest, PaysAtSmallBatchesOfPredictableText) {
  ModelConfig c = TinyConfig();
  c.vocab_size = 1000;
  c.hidden_size = 1024;
  c.moe_intermediate_size = 512;
  c.num_layers = 20;
  SpeculationRule rule(c, 1);
  EXPECT_EQ(rule.Drafts(1), 1);
  EXPECT_EQ(rule.Drafts(64), 0);
  rule.Count(1000, 100);
  EXPECT_EQ(rule.Drafts(1), 0);
  rule.Reset();
  EXPECT_EQ(rule.Drafts(1), 1);
  c.mtp_layers = 2;
  SpeculationRule deep(c, 1);
  deep.Count(1000, 950, 0);
  deep.Count(1000, 950, 1);
  EXPECT_EQ(deep.Drafts(1), 2);
  deep.Count(2000, 0, 1);  // the second hardly ever holds
  EXPECT_EQ(deep.Drafts(1), 1);
}

}  // namespace
}  // namespace temper::engine
