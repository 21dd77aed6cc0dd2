// Whatever the scheduler does behind a sample's back, a device's engine follows bit for bit.
#include "tests/simt/engine/engines.h"

namespace temper::engine {
namespace {

std::vector<GroupRequest> Mixture() {
  return {Group(1, 20, 3, 5), Group(2, 5, 4, 8), Group(3, 33, 2, 4), Group(4, 1, 2, 6)};
}

std::shared_ptr<Weights> Tiny(std::uint64_t seed = 5) {
  return TinyWeights(TinyConfig(), seed, {Mode::kBf16, kernels::CacheType::kBf16});
}

/// What the machine of tests/simt counts; on a device nothing does.
struct Counted {
  std::uint64_t captures = 0, allocations = 0;
};
#ifdef TEMPER_ON_DEVICE
Counted Count() { return {}; }
void SmallMemory(std::size_t) {}
#else
Counted Count() { return {simt::Host().captures, simt::Host().allocations}; }
void SmallMemory(std::size_t bytes) { simt::Host().memory = bytes; }
#endif

TEST(ScheduleTest, ChunksCompanyAndThreadOrdersChangeNoBit) {
  auto weights = Tiny();
  const Results expected = Drive(weights, On("cpu"), Mixture());
  for (const auto& [chunk, rows, order] :
       {std::tuple(3, 24, simt::Order::kReverse), std::tuple(64, 2, simt::Order::kShuffled)}) {
    simt::SetOrder(order, 7);
    EngineOptions o = On("cuda:0");
    o.chunk = chunk;
    o.max_rows = rows;
    ExpectSame(expected, Drive(weights, o, Mixture()));
    simt::SetOrder(simt::Order::kForward);
  }
  const Results alone = Drive(weights, On("cuda:0"), {Mixture()[2]});
  for (const auto& [key, sample] : alone) EXPECT_EQ(sample.logp, expected.at(key).logp);
}

TEST(ScheduleTest, PagesThatRunOutAreTakenBackAsOnTheCpu) {
  auto weights = Tiny();
  EngineOptions o = On("cpu");
  o.cache_tokens = 96;
  const Results expected = Drive(weights, o, Mixture());
  o.device = "cuda:0";
  Engine engine(weights, o);
  ExpectSame(expected, Drive(engine, Mixture()));
  EXPECT_GT(engine.stats().preempted, 0u);
}

TEST(ScheduleTest, SharedPrefixesForksAndCancelsAreTheCpus) {
  auto weights = Tiny();
  Engine device(weights, On("cuda:0")), cpu(weights, On("cpu"));
  for (Engine* engine : {&cpu, &device}) {
    engine->Add(Group(7, 40, 2, 6));
    std::vector<FinishedSample> done;
    for (int i = 0; i < 4; ++i) engine->Step(&done);
    engine->Cancel(7);
  }
  // Group 10's prompt begins as group 7's, which lies in the cache.
  const std::vector<GroupRequest> next = {Group(10, 40, 3, 4), Group(8, 12, 1, 4)};
  ExpectSame(Drive(cpu, next), Drive(device, next));
  EXPECT_GT(device.stats().prefix_hits, 0u);
  EXPECT_EQ(device.stats().prefix_hits, cpu.stats().prefix_hits);
  EXPECT_EQ(device.stats().cache_tokens, cpu.stats().cache_tokens);
}

TEST(ScheduleTest, NewWeightsTakeTheirPlacesInFlight) {
  for (CachePolicy policy : {CachePolicy::kKeep, CachePolicy::kRecompute, CachePolicy::kDrop}) {
    std::vector<Results> ran;
    for (const char* name : {"cpu", "cuda:0"}) {
      auto weights = Tiny();
      Engine engine(weights, On(name));
      engine.Add(Group(1, 20, 3, 7));
      std::vector<FinishedSample> done;
      for (int i = 0; i < 4; ++i) engine.Step(&done);
      FillTiny(weights.get(), 9);
      const Counted before = Count();
      engine.SetVersion(2, policy);
      EXPECT_EQ(Count().allocations, before.allocations) << "in place";
      ran.push_back(Finish(engine, std::move(done)));
      if (policy == CachePolicy::kKeep) {
        EXPECT_EQ(Count().captures, before.captures) << "graphs live on";
      }
    }
    ExpectSame(ran[0], ran[1]);
    EXPECT_NE(ran[0].begin()->second.versions.front(), ran[0].begin()->second.versions.back() + 1);
  }
}

TEST(ScheduleTest, SequencesPastASplitAndMoreThanTheTableHoldsMakeItGrow) {
  auto weights = TinyWeights(TinyConfig(false, 0), 5);
  EngineOptions o = On("cpu");
  o.chunk = 256;
  o.cache_tokens = 0;
  const std::vector<GroupRequest> groups = {Group(1, 258, 1, 3), Group(2, 3, 70, 2)};
  const Results expected = Drive(weights, o, groups);
  o.device = "cuda:0";
  SmallMemory(std::size_t{200} << 20);  // takes what is free
  ExpectSame(expected, Drive(weights, o, groups));
  SmallMemory(std::size_t{1} << 30);
}

TEST(ScheduleTest, FiltersAndKeptIdsAreTheCpus) {
  auto weights = Tiny();
  std::vector<GroupRequest> groups = Mixture();
  groups[0].params = {0.7f, 5, 0.8f, 0.0f};
  groups[1].params = {0.0f, 0, 1.0f, 0.0f};
  groups[2].params = {1.3f, 0, 0.9f, 0.05f};
  groups[0].kept = groups[2].kept = true;
  groups[3].begun = 2;
  ExpectSame(Drive(weights, On("cpu"), groups), Drive(weights, On("cuda:0"), groups));
}

#ifndef TEMPER_ON_DEVICE
TEST(ScheduleTest, ADecodeStepIsOneGraphOneCopyBackAndOneWait) {
  auto weights = Tiny();
  Engine engine(weights, On("cuda:0"));
  engine.Add(Group(1, 4, 3, 20));
  std::vector<FinishedSample> done;
  for (int i = 0; i < 3; ++i) engine.Step(&done);
  simt::HostState& host = simt::Host();
  const simt::HostState before = host;
  for (int i = 0; i < 10; ++i) engine.Step(&done);
  EXPECT_EQ(host.waits - before.waits, 10u);
  EXPECT_EQ(host.copies_to_host - before.copies_to_host, 10u);
  EXPECT_EQ(host.bytes_to_host - before.bytes_to_host, 10u * 3 * 16);
  EXPECT_EQ(host.graph_launches - before.graph_launches, 10u);
  EXPECT_EQ(host.captures, before.captures);
  EXPECT_EQ(host.allocations, before.allocations);
  // Scatter, picked states, head, log-softmax, sampler: what changes its shape from step to step.
  EXPECT_LE(host.launches - before.launches, 10u * 6);
}
#endif

TEST(ScheduleTest, OtherFormsOfTheModelAreTheCpus) {
  Json v2 = {{"architectures", {"DeepseekV2ForCausalLM"}},
             {"model_type", "deepseek_v2"},
             {"vocab_size", 101},
             {"hidden_size", 64},
             {"intermediate_size", 96},
             {"moe_intermediate_size", 48},
             {"num_hidden_layers", 2},
             {"first_k_dense_replace", 0},
             {"num_attention_heads", 2},
             {"num_key_value_heads", 2},
             {"kv_lora_rank", 40},
             {"q_lora_rank", nullptr},
             {"qk_nope_head_dim", 128},
             {"qk_rope_head_dim", 16},
             {"v_head_dim", 128},
             {"n_routed_experts", 6},
             {"num_experts_per_tok", 2},
             {"n_shared_experts", 1},
             {"n_group", 3},
             {"topk_group", 2},
             {"topk_method", "group_limited_greedy"},
             {"scoring_func", "softmax"},
             {"norm_topk_prob", false},
             {"routed_scaling_factor", 1.0},
             {"rms_norm_eps", 1e-6},
             {"rope_theta", 10000},
             {"max_position_embeddings", 512},
             {"hidden_act", "silu"},
             {"tie_word_embeddings", true},
             {"attention_bias", true},
             {"bos_token_id", 0},
             {"eos_token_id", 1}};
  const ModelConfig config = ParseModelConfig(v2, "v2");
  for (Mode mode : {Mode::kFp32, Mode::kFp8, Mode::kFp8W8a8}) {
    auto weights = TinyWeights(config, 5, {mode, kernels::CacheType::kBf16});
    ExpectSame(Drive(weights, On("cpu"), Mixture()), Drive(weights, On("cuda:0"), Mixture()));
  }
}

}  // namespace
}  // namespace temper::engine
