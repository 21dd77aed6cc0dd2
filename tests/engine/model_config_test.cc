#include "engine/model_config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/safetensors.h"
#include "tests/engine/temp_dir.h"
#include "tests/engine/tiny_model.h"

namespace temper::engine {
namespace {

Json TinyJson() { return TinyConfig().raw; }

std::string RefusedWith(const std::string& key, const std::string& value) {
  Json json = TinyJson();
  json[key] = Json::parse(value);
  return Refusal([&] { ParseModelConfig(json, "c"); });
}

// As JSON text: tables of Json temporaries take a compiler minutes.
struct Case {
  const char* key;
  const char* value;
  const char* want;
};

TEST(ModelConfig, EveryUnsupportedFieldIsRefusedByName) {
  const Case cases[] = {
      {"model_type", R"("llama")",
       "c: model_type: \"llama\" is not supported: it must be \"deepseek_v2\" or "
       "\"deepseek_v3\""},
      {"model_type", R"("deepseek_v2")",
       "c: architectures: [\"DeepseekV3ForCausalLM\"] is not supported: it must be "
       "[\"DeepseekV2ForCausalLM\"]"},
      {"model_type", "null", "c: model_type is missing"},
      {"architectures", R"(["DeepseekV3ForSequenceClassification"])",
       "c: architectures: [\"DeepseekV3ForSequenceClassification\"] is not supported: it must be "
       "[\"DeepseekV3ForCausalLM\"]"},
      {"quantization_config", R"({"quant_method": "fp8"})",
       "c: quantization_config: weight_block_size is missing"},
      {"quantization_config", R"({"quant_method": "awq", "weight_block_size": [128, 128]})",
       "c: quantization_config: quant_method: \"awq\" is not supported: it must be \"fp8\""},
      {"quantization_config", R"({"quant_method": "fp8", "weight_block_size": [64, 128]})",
       "c: quantization_config: weight_block_size: [64,128] is not supported: it must be "
       "[128,128]"},
      {"attention_bias", "1", "c: attention_bias: 1 must be true or false"},
      {"mlp_bias", "true", "c: mlp_bias: true is not supported: it must be false"},
      {"hidden_act", R"("gelu")", "c: hidden_act: \"gelu\" is not supported: it must be \"silu\""},
      {"moe_layer_freq", "0", "c: moe_layer_freq: 0 must be an integer in [1, 4096]"},
      {"moe_layer_freq", "[0, 1, 1]", "c: moe_layer_freq: [0,1,1] must be an integer in [1, 4096]"},
      {"scoring_func", R"("softmax")",
       "c: scoring_func: \"softmax\" is not supported: it must be \"sigmoid\""},
      {"topk_method", R"("greedy")",
       "c: topk_method: \"greedy\" is not supported: it must be \"noaux_tc\""},
      {"rope_interleave", "false", "c: rope_interleave: false is not supported: it must be true"},
      {"attention_dropout", "0.1", "c: attention_dropout: only 0 is supported"},
      {"vocab_size", "0", "c: vocab_size: 0 must be an integer in [1, 16777216]"},
      {"vocab_size", "64.0", "c: vocab_size: 64.0 must be an integer in [1, 16777216]"},
      {"vocab_size", R"("64")", "c: vocab_size: \"64\" must be an integer in [1, 16777216]"},
      {"hidden_size", "18446744073709551616",
       "c: hidden_size: 1.8446744073709552e+19 must be an integer in [1, 16777216]"},
      {"hidden_size", "null", "c: hidden_size is missing"},
      {"num_hidden_layers", "2147483648",
       "c: num_hidden_layers: 2147483648 must be an integer in [1, 4096]"},
      {"num_nextn_predict_layers", "65",
       "c: num_nextn_predict_layers: 65 must be an integer in [0, 64]"},
      {"first_k_dense_replace", "4", "c: first_k_dense_replace: 4 must be an integer in [0, 3]"},
      {"num_attention_heads", "-3", "c: num_attention_heads: -3 must be an integer in [1, 65536]"},
      {"num_key_value_heads", "1", "c: num_key_value_heads: 1 must equal num_attention_heads (3)"},
      {"q_lora_rank", "0", "c: q_lora_rank: 0 must be an integer in [1, 16777216]"},
      {"kv_lora_rank", "0", "c: kv_lora_rank: 0 must be an integer in [1, 16777216]"},
      {"qk_rope_head_dim", "7", "c: qk_rope_head_dim: 7 must be even"},
      {"n_routed_experts", "6",
       "c: n_group: 4 must divide n_routed_experts (6) into groups of at least 2"},
      {"n_group", "8", "c: n_group: 8 must divide n_routed_experts (8) into groups of at least 2"},
      {"topk_group", "5", "c: topk_group: 5 must be an integer in [1, 4]"},
      {"num_experts_per_tok", "5", "c: num_experts_per_tok: 5 must be an integer in [1, 4]"},
      {"n_shared_experts", "0", "c: n_shared_experts: 0 must be an integer in [1, 1024]"},
      {"norm_topk_prob", "1", "c: norm_topk_prob: 1 must be true or false"},
      {"routed_scaling_factor", R"("2.5")",
       "c: routed_scaling_factor: \"2.5\" must be a number in [1e-06, 1000000]"},
      {"rms_norm_eps", "0", "c: rms_norm_eps: 0 must be a number in [1e-12, 1]"},
      {"rope_theta", "1", "c: rope_theta: 1 must be a number in [1.0001, 1e+15]"},
      {"rope_scaling", R"("yarn")", "c: rope_scaling: \"yarn\" must be an object"},
      {"rope_scaling", R"({"type": "linear", "factor": 2})",
       "c: rope_scaling: type \"linear\" is not supported: it must be \"default\" or \"yarn\""},
      {"rope_scaling", R"({"type": "yarn", "rope_type": "default"})",
       "c: rope_scaling: type: \"yarn\" disagrees with rope_type"},
      {"rope_scaling", R"({"type": "yarn", "attention_factor": 1.5})",
       "c: rope_scaling: attention_factor is not supported: give mscale instead"},
      {"rope_scaling", R"({"type": "yarn", "truncate": false})",
       "c: rope_scaling: truncate: false is not supported: it must be true"},
      {"rope_scaling", R"({"type": "yarn", "factor": 0.5})",
       "c: rope_scaling: factor: 0.5 must be a number in [1, 1000000]"},
      {"rope_scaling", R"({"type": "yarn", "beta_slow": 64})",
       "c: rope_scaling: beta_fast must be at least beta_slow"},
      {"rope_scaling", R"({"type": "yarn", "rope_theta": 5.0})",
       "c: rope_theta stands twice with different values"},
      {"rope_parameters", R"({"rope_theta": 10000, "partial_rotary_factor": 0.5})",
       "c: rope_parameters: partial_rotary_factor: 0.5 is not supported: it must be 1.0"},
      {"eos_token_id", "101", "c: eos_token_id: 101 must be an integer in [0, 100]"},
      {"eos_token_id", "[1, -1]", "c: eos_token_id: -1 must be an integer in [0, 100]"},
      {"bos_token_id", "101", "c: bos_token_id: 101 must be an integer in [0, 100]"},
  };
  for (const Case& c : cases) EXPECT_EQ(RefusedWith(c.key, c.value), c.want);
  Json without = TinyJson();
  without.erase("q_lora_rank");
  EXPECT_EQ(Refusal([&] { ParseModelConfig(without, "c"); }), "c: q_lora_rank is missing");
  EXPECT_EQ(Refusal([&] { ParseModelConfig(Json::array(), "c"); }), "c: [] must be an object");
}

TEST(ModelConfig, ReadsItsFieldsAndKeepsTheFile) {
  Json json = TinyJson();
  json["eos_token_id"] = {1, 7};
  json["aux_loss_alpha"] = 0.001;
  json["q_lora_rank"] = nullptr;
  const ModelConfig c = ParseModelConfig(json, "c");
  EXPECT_EQ(c.vocab_size, 101);
  EXPECT_EQ(c.q_lora_rank, 0);
  EXPECT_EQ(c.eos_ids, (std::vector<int>{1, 7}));
  EXPECT_EQ(c.qk_dim(), 28);
  EXPECT_EQ(c.latent_dim(), 32);
  EXPECT_EQ(c.routed_scaling_factor, 2.5f);
  EXPECT_TRUE(c.norm_topk_prob);
  EXPECT_FALSE(c.IsMoe(0));
  EXPECT_TRUE(c.IsMoe(3));
  EXPECT_EQ(c.raw, json);
}

TEST(ModelConfig, RotaryNumbersAreTransformers) {
  const Json golden = configs::ReadJsonFile(TEMPER_SOURCE_DIR "/tests/engine/goldens/rope.json");
  ASSERT_GE(golden.size(), 9u);
  for (const auto& [name, entry] : golden.items()) {
    const ModelConfig c = ParseModelConfig(entry.at("config"), name);
    const auto inv = c.rope_frequencies();
    ASSERT_EQ(inv.size(), entry.at("inv_freq").size()) << name;
    for (std::size_t i = 0; i < inv.size(); ++i) {
      // transformers computes the frequencies in FP32.
      const double want = entry.at("inv_freq")[i].get<double>();
      EXPECT_NEAR(inv[i], want, 2e-6 * want) << name << " " << i;
    }
    EXPECT_NEAR(c.rope_amplitude(), entry.at("amplitude").get<double>(), 1e-12) << name;
    EXPECT_NEAR(c.attention_scale(), entry.at("scale").get<double>(), 1e-13) << name;
  }
}

TEST(ModelConfig, TheTableCountsTheParametersOfTheKnownModel) {
  Json json = TinyJson();
  const Json v3 = Json::parse(R"({"vocab_size": 129280, "hidden_size": 7168,
      "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
      "num_nextn_predict_layers": 1, "first_k_dense_replace": 3, "num_attention_heads": 128,
      "num_key_value_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512,
      "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
      "n_routed_experts": 256, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4})");
  json.update(v3);
  const auto total = [&] {
    std::int64_t sum = 0;
    for (const TensorSpec& spec : RequiredTensors(ParseModelConfig(json, "v3")))
      sum += spec.count();
    return sum;
  };
  const std::int64_t with_mtp = total();
  json["num_nextn_predict_layers"] = 0;
  const std::int64_t main = total();
  // DeepSeek-V3's 671 B, the routers' biases (256 a MoE layer) among them.
  EXPECT_EQ(main, 671'026'419'200);
  EXPECT_NEAR(static_cast<double>(with_mtp - main), 11.6e9, 0.05e9);
}

TEST(ModelConfig, NamesAreThePublishedOnes) {
  const ModelConfig c = TinyConfig(true, 1);
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const TensorSpec& spec : RequiredTensors(c)) shapes[spec.name] = spec.shape;
  using Shape = std::vector<std::int64_t>;
  EXPECT_EQ(shapes.at("lm_head.weight"), (Shape{101, 72}));
  EXPECT_EQ(shapes.at("model.layers.0.mlp.down_proj.weight"), (Shape{72, 100}));
  EXPECT_EQ(shapes.at("model.layers.1.mlp.experts.7.up_proj.weight"), (Shape{40, 72}));
  EXPECT_EQ(shapes.at("model.layers.2.mlp.gate.e_score_correction_bias"), Shape{8});
  EXPECT_EQ(shapes.at("model.layers.0.self_attn.kv_a_proj_with_mqa.weight"), (Shape{32, 72}));
  EXPECT_EQ(shapes.at("model.layers.0.self_attn.kv_b_proj.weight"), (Shape{3 * 38, 24}));
  EXPECT_EQ(shapes.at("model.layers.3.eh_proj.weight"), (Shape{72, 144}));
  EXPECT_EQ(shapes.at("model.layers.3.shared_head.norm.weight"), Shape{72});
  EXPECT_EQ(shapes.count("model.layers.3.embed_tokens.weight"), 0u);
  EXPECT_EQ(CopiedTensors(c)[1], (std::pair<std::string, std::string>(
                                     "model.layers.3.shared_head.head.weight", "lm_head.weight")));
}

}  // namespace
}  // namespace temper::engine
