// Where DeepSeek's demo, the code beside the weights and transformers disagree, which one we
// follow: one test a row.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "engine/forward.h"
#include "engine/model_config.h"
#include "kernels/bf16.h"
#include "kernels/ops.h"
#include "kernels/router.h"
#include "tests/engine/temp_dir.h"
#include "tests/engine/tiny_model.h"

namespace temper::engine {
namespace {

using kernels::RouterMethod;

kernels::ThreadPool& Pool() {
  static kernels::ThreadPool pool(1);
  return pool;
}

ModelConfig Published(bool v2, double mscale, double mscale_all_dim) {
  Json json = TinyConfig(true, 0).raw;
  json.update(
      {{"qk_nope_head_dim", 128}, {"qk_rope_head_dim", 64}, {"max_position_embeddings", 163840}});
  json["rope_scaling"] = {{"type", "yarn"},
                          {"factor", 40},
                          {"beta_fast", 32},
                          {"beta_slow", 1},
                          {"mscale", mscale},
                          {"mscale_all_dim", mscale_all_dim},
                          {"original_max_position_embeddings", 4096}};
  if (v2) {
    json.update({{"model_type", "deepseek_v2"},
                 {"architectures", {"DeepseekV2ForCausalLM"}},
                 {"topk_method", "greedy"},
                 {"scoring_func", "softmax"},
                 {"norm_topk_prob", false}});
  }
  return ParseModelConfig(json, "c");
}

struct Chosen {
  std::vector<std::int32_t> ids;
  std::vector<float> weight;
};
Chosen RouteOne(const std::vector<float>& logits, const std::vector<float>& bias,
                const kernels::RouterShape& shape) {
  Chosen out{std::vector<std::int32_t>(shape.top_k), std::vector<float>(shape.top_k)};
  kernels::Route(logits.data(), std::int64_t(logits.size()), bias.data(), shape, 1, nullptr,
                 out.ids.data(), out.weight.data(), Pool());
  return out;
}

TEST(Disagreement, D1SoftmaxScaleHasMSquaredInBothFamilies) {
  EXPECT_NEAR(Published(false, 1.0, 1.0).attention_scale(), 0.1352338, 5e-8);
  EXPECT_NEAR(Published(true, 0.707, 0.707).attention_scale(), 0.1147214, 5e-8);
  EXPECT_NEAR(Published(true, 1.0, 0.0).attention_scale(), 0.0721688, 5e-8);
}

TEST(Disagreement, D2AmplitudeIsTheRatioOfTheTwoMscales) {
  EXPECT_EQ(Published(false, 1.0, 1.0).rope_amplitude(), 1.0);
  EXPECT_EQ(Published(true, 0.707, 0.707).rope_amplitude(), 1.0);
  const double ln = std::log(40.0);
  EXPECT_NEAR(Published(false, 0.707, 1.0).rope_amplitude(), (0.0707 * ln + 1) / (0.1 * ln + 1),
              1e-12);
}

TEST(Disagreement, D3AGroupThatIsOutNeverWinsOverNegativeScores) {
  // Both experts of the best group score below 0: zeros in place of the others would win.
  const kernels::RouterShape shape{4, 2, 2, 1, true, 1.0f, RouterMethod::kNoauxTc};
  const Chosen got = RouteOne({0, 0, -1, -1}, {-2, -2, -2, -2}, shape);
  EXPECT_EQ(got.ids, (std::vector<std::int32_t>{0, 1}));
}

TEST(Disagreement, D4AV2GroupThatIsOutIsOutEvenWhereEveryScoreUnderflows) {
  // Softmax scores of the kept group's second expert are 0, as a masked one's would be.
  const kernels::RouterShape shape{4, 2, 2, 1, false, 1.0f, RouterMethod::kGroupLimitedGreedy};
  const Chosen got = RouteOne({-300, -300, 0, -300}, {}, shape);
  EXPECT_EQ(got.ids, (std::vector<std::int32_t>{2, 3}));
  EXPECT_EQ(got.weight[1], 0.0f);
}

TEST(Disagreement, D5RouterScoresAreNotRoundedToBf16) {
  // Two scores that BF16 can't tell apart.
  const kernels::RouterShape shape{2, 1, 1, 1, false, 1.0f, RouterMethod::kNoauxTc};
  EXPECT_EQ(kernels::EncodeBf16(1.0f), kernels::EncodeBf16(1.0001f));
  EXPECT_EQ(RouteOne({1.0f, 1.0001f}, {0, 0}, shape).ids[0], 1);
}

TEST(Disagreement, D6V2NeverNormalisesAndIsRefusedWhereItShould) {
  const kernels::RouterShape shape{4, 2, 1, 1, false, 16.0f, RouterMethod::kGreedy};
  const Chosen got = RouteOne({0, 0, 0, 0}, {}, shape);
  EXPECT_FLOAT_EQ(got.weight[0], 4.0f);
  Json json = Published(true, 1, 1).raw;
  json["norm_topk_prob"] = true;
  EXPECT_NE(Refusal([&] { ParseModelConfig(json, "c"); }).find("norm_topk_prob"),
            std::string::npos);
}

TEST(Disagreement, D7NormalisingAddsAnEpsilon) {
  // Sigmoids of -80 are 1.8e-35: without 1e-20 their shares were one half each.
  const kernels::RouterShape shape{2, 2, 1, 1, true, 2.5f, RouterMethod::kNoauxTc};
  const Chosen got = RouteOne({-80, -80}, {0, 0}, shape);
  EXPECT_LT(got.weight[0], 1e-12f);
  EXPECT_FLOAT_EQ(RouteOne({3, 3}, {0, 0}, shape).weight[0], 1.25f);
}

TEST(Disagreement, D8ExpertsAreSummedInFp32InAscendingOrder) {
  // In BF16 or another order the small parts vanish.
  const float out[] = {1.0f, 0x1p-12f, 0x1p-12f}, weight[] = {1, 1, 1};
  const std::int32_t slot[] = {0, 1, 2};
  float y = 0;
  kernels::CombineExperts(out, 1, slot, weight, 3, nullptr, 0, nullptr, 0, 1, 1, &y, 1, Pool());
  EXPECT_EQ(y, 1.0f + 0x1p-11f);
}

TEST(Disagreement, D9RotaryPairsAreNeighboursAndStayWhereTheyAre) {
  const float half_turn[] = {1, 0, -1, 0};  // cos, sin of pair 0 and 1 at position 0
  float x[] = {1, 2, 3, 4};
  const std::int32_t position = 0;
  kernels::Rope(x, 4, 1, 0, 4, &position, 1, half_turn, Pool());
  EXPECT_EQ(std::vector<float>(x, x + 4), (std::vector<float>{1, 2, -3, -4}));
}

TEST(Disagreement, D10CosAndSinStayFp32) {
  const double inv[] = {1.0};
  float table[8];
  kernels::RopeTable(inv, 2, 4, 1.0, table);
  EXPECT_EQ(table[2], float(std::cos(1.0)));
  EXPECT_NE(table[2], kernels::DecodeBf16(kernels::EncodeBf16(table[2])));
}

TEST(Disagreement, D11NormsMultiplyByTheWeightLast) {
  const float x[] = {3.0f, 1.0f, 2.0f, 7.0f}, weight[] = {1.1f, 0.9f, 1.3f, 0.7f};
  float y[4];
  kernels::RmsNorm(x, 4, weight, 1e-6f, 1, 4, y, 4, Pool());
  const float scale = 1.0f / std::sqrt(63.0f / 4 + 1e-6f);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(y[i], x[i] * scale * weight[i]);
}

TEST(Disagreement, D12LowRankNormsHaveTheirOwnEpsilon) {
  // Latents of 1e-3 under rms_norm_eps 0.5: scaled by 1 / sqrt(1e-6 + 1e-6), not 1 / sqrt(1e-6 +
  // 0.5).
  Json json = TinyConfig(true, 0).raw;
  json["rms_norm_eps"] = 0.5;
  const ModelConfig config = ParseModelConfig(json, "c");
  const auto weights = TinyWeights(config, 3);
  const std::size_t h = std::size_t(config.hidden_size);
  const auto ones = [](std::size_t n) { return std::vector<float>(n, 1.0f); };
  weights->Set("model.embed_tokens.weight", ones(std::size_t(config.vocab_size) * h));
  weights->Set("model.layers.0.input_layernorm.weight", ones(h));
  weights->Set("model.layers.0.self_attn.kv_a_layernorm.weight", ones(config.kv_lora_rank));
  std::vector<float> kv_a(std::size_t(config.latent_dim()) * h, 0.0f);
  for (int i = 0; i < config.kv_lora_rank; ++i)
    kv_a[std::size_t(i) * h] = 1e-3f * std::sqrt(1.5f);  // the input is 1 / sqrt(1 + 0.5)
  weights->Set("model.layers.0.self_attn.kv_a_proj_with_mqa.weight", kv_a);
  Forward forward(*weights, Pool());
  std::vector<std::byte> rows(std::size_t(forward.CacheBytes(config.num_layers)));
  std::vector<float> hidden(h);
  std::byte* base = rows.data();
  const void* key = base;
  const std::int32_t id = 5, position = 0;
  const kernels::AttentionRow attention{&key, 1};
  forward.Hidden({1, &id, &position, &base, &attention}, hidden.data());
  EXPECT_NEAR(reinterpret_cast<const float*>(base)[0], 1e-3 / std::sqrt(1e-6 + 1e-6), 1e-4);
}

TEST(Disagreement, D13MtpLayersAreReadNotSkipped) {
  const ModelConfig config = TinyConfig(true, 2);
  int tensors = 0;
  for (const TensorSpec& spec : RequiredTensors(config)) {
    tensors +=
        spec.name.rfind("model.layers.3.", 0) == 0 || spec.name.rfind("model.layers.4.", 0) == 0;
  }
  EXPECT_EQ(tensors, 2 * (4 + 9 + 2 + 3 * 8 + 3));
}

TEST(Disagreement, D14TheGroupLimitedRouterOfV2Routes) {
  Json json = Published(true, 0.707, 0.707).raw;
  json.update({{"topk_method", "group_limited_greedy"},
               {"n_group", 4},
               {"topk_group", 2},
               {"num_experts_per_tok", 3}});
  const ModelConfig config = ParseModelConfig(json, "c");
  const Chosen got = RouteOne({0, 0, 5, 0, 0, 6, 4, 4.5}, {}, config.router_shape());
  EXPECT_EQ(got.ids[0], 2);  // groups {2, 3} and {4, 5}: 4.5 in the last group is out
  EXPECT_EQ(got.ids[2], 5);
}

}  // namespace
}  // namespace temper::engine
