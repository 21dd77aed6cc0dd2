#include "engine/model_config.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "configs/error.h"
#include "configs/files.h"
#include "engine/safetensors.h"
#include "kernels/ops.h"

namespace temper::engine {
namespace {

using configs::Brief;
using configs::GetInt;
using configs::GetNumber;

// Of all layers together: the list of a model's tensors must stay small (DeepSeek-V3 has 15,872).
constexpr std::int64_t kMaxExperts = 65536;
constexpr std::int64_t kMaxDim = std::int64_t{1} << 24;  // widths; products are checked in int64

// The fields of one JSON object by name, null counting as absent.
class Fields {
 public:
  Fields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  const Json* Find(const char* name) const {
    const auto it = json_.find(name);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }
  bool Has(const char* name) const { return json_.contains(name); }
  std::string Where(const char* name) const { return where_ + ": " + name; }
  const Json& Need(const char* name) const {
    if (const Json* value = Find(name)) return *value;
    throw UserError(Where(name) + " is missing");
  }
  int Int(const char* name, std::int64_t lo, std::int64_t hi) const {
    return static_cast<int>(GetInt(Need(name), Where(name), lo, hi));
  }
  int Int(const char* name, std::int64_t lo, std::int64_t hi, int absent) const {
    return Find(name) ? Int(name, lo, hi) : absent;
  }
  double Number(const char* name, double lo, double hi, double absent) const {
    const Json* value = Find(name);
    return value ? GetNumber(*value, Where(name), lo, hi) : absent;
  }
  bool Bool(const char* name, bool absent) const {
    const Json* value = Find(name);
    if (!value) return absent;
    if (value->is_boolean()) return value->get<bool>();
    throw UserError(Where(name) + ": " + Brief(*value) + " must be true or false");
  }
  // Refuses every value but one (or absence, which means the same).
  void Only(const char* name, const Json& supported) const {
    const Json* value = Find(name);
    if (!value || *value == supported) return;
    throw UserError(Where(name) + ": " + Brief(*value) + " is not supported: it must be " +
                    supported.dump());
  }

 private:
  const Json& json_;
  std::string where_;
};

bool IsV2(const Fields& f) { return f.Need("model_type") == "deepseek_v2"; }

bool HasScalarHead(const Fields& f) {
  const Json* found = f.Find("architectures");
  const char* const name =
      IsV2(f) ? "DeepseekV2ForSequenceClassification" : "DeepseekV3ForSequenceClassification";
  return found && *found == Json::array({name});
}

void RefuseUnsupported(const Fields& f) {
  const Json& type = f.Need("model_type");
  if (type != "deepseek_v3" && type != "deepseek_v2") {
    throw UserError(f.Where("model_type") + ": " + Brief(type) +
                    " is not supported: it must be \"deepseek_v2\" or \"deepseek_v3\"");
  }
  const bool v2 = IsV2(f);
  if (!HasScalarHead(f)) {
    f.Only("architectures", Json::array({v2 ? "DeepseekV2ForCausalLM" : "DeepseekV3ForCausalLM"}));
  }
  f.Only("hidden_act", "silu");
  f.Only("mlp_bias", false);
  f.Only("scoring_func", v2 ? "softmax" : "sigmoid");
  if (!v2) f.Only("topk_method", "noaux_tc");
  f.Only("rope_interleave", true);
  if (f.Number("attention_dropout", 0, 1, 0) != 0) {
    throw UserError(f.Where("attention_dropout") + ": only 0 is supported");
  }
}

// The published block format of FP8 checkpoints; what follows from it stands in the tensors.
void ReadQuantization(const Fields& f, const std::string& where) {
  const Json* object = f.Find("quantization_config");
  if (!object) return;
  const std::string name = where + ": quantization_config";
  if (!object->is_object()) throw UserError(name + ": " + Brief(*object) + " must be an object");
  const Fields q(*object, name);
  q.Need("quant_method");
  q.Only("quant_method", "fp8");
  q.Only("fmt", "e4m3");
  q.Only("activation_scheme", "dynamic");
  q.Need("weight_block_size");
  q.Only("weight_block_size", Json::array({128, 128}));
  const Json* scale = q.Find("scale_fmt");
  if (scale && *scale != "ue8m0" && *scale != "float") {
    throw UserError(q.Where("scale_fmt") + ": " + Brief(*scale) +
                    " is not supported: it must be \"ue8m0\" or \"float\"");
  }
}

void ReadShape(const Fields& f, ModelConfig& c) {
  c.vocab_size = f.Int("vocab_size", 1, kMaxDim);
  c.hidden_size = f.Int("hidden_size", 1, kMaxDim);
  c.intermediate_size = f.Int("intermediate_size", 1, kMaxDim);
  c.moe_intermediate_size = f.Int("moe_intermediate_size", 1, kMaxDim);
  c.num_layers = f.Int("num_hidden_layers", 1, 4096);
  const bool published = f.Has("num_nextn_predict_layers");
  c.mtp_layers = f.Int(published ? "num_nextn_predict_layers" : "num_mtp_layers", 0, 64, 0);
  c.first_dense = f.Int("first_k_dense_replace", 0, c.num_layers);
  c.moe_layer_freq = f.Int("moe_layer_freq", 1, 4096, 1);
  c.attention_bias = f.Bool("attention_bias", false);
  c.heads = f.Int("num_attention_heads", 1, 65536);
  const int kv_heads = f.Int("num_key_value_heads", 1, 65536, c.heads);
  if (kv_heads != c.heads) {
    throw UserError(f.Where("num_key_value_heads") + ": " + std::to_string(kv_heads) +
                    " must equal num_attention_heads (" + std::to_string(c.heads) + ")");
  }
  // null is an answer here: the class default of a file without the key is another model.
  if (!f.Has("q_lora_rank")) f.Need("q_lora_rank");
  c.q_lora_rank = f.Int("q_lora_rank", 1, kMaxDim, 0);
  c.kv_lora_rank = f.Int("kv_lora_rank", 1, kMaxDim);
  c.qk_nope_dim = f.Int("qk_nope_head_dim", 1, 65536);
  c.qk_rope_dim = f.Int("qk_rope_head_dim", 2, 65536);
  if (c.qk_rope_dim % 2 != 0) {
    throw UserError(f.Where("qk_rope_head_dim") + ": " + std::to_string(c.qk_rope_dim) +
                    " must be even");
  }
  c.v_dim = f.Int("v_head_dim", 1, 65536);
  const std::int64_t widest = std::int64_t{c.heads} * std::max(c.qk_dim(), c.qk_nope_dim + c.v_dim);
  if (widest > std::numeric_limits<int>::max()) {
    throw UserError(f.Where("num_attention_heads") + ": " + std::to_string(c.heads) +
                    " heads of this width overflow: " + std::to_string(widest) + " columns");
  }
  c.max_positions = f.Int("max_position_embeddings", 1, std::int64_t{1} << 28);
}

void ReadV2Router(const Fields& f, ModelConfig& c) {
  const Json* method = f.Find("topk_method");
  if (!method || *method == "greedy") {
    c.router = kernels::RouterMethod::kGreedy;
  } else if (*method == "group_limited_greedy") {
    c.router = kernels::RouterMethod::kGroupLimitedGreedy;
  } else {
    throw UserError(f.Where("topk_method") + ": " + Brief(*method) +
                    " is not supported: it must be \"greedy\" or \"group_limited_greedy\"");
  }
}

void ReadExperts(const Fields& f, ModelConfig& c) {
  c.experts = f.Int("n_routed_experts", 1, 65536);
  const std::int64_t all = std::int64_t{c.num_layers + c.mtp_layers} * c.experts;
  if (all > kMaxExperts) {
    throw UserError(f.Where("n_routed_experts") + ": " + std::to_string(all) +
                    " experts in all layers: at most " + std::to_string(kMaxExperts));
  }
  c.shared_experts = f.Int("n_shared_experts", 1, 1024);
  if (std::int64_t{c.shared_experts} * c.moe_intermediate_size > kMaxDim) {
    throw UserError(f.Where("n_shared_experts") + ": shared experts wider than " +
                    std::to_string(kMaxDim));
  }
  const bool v2 = c.model_type == "deepseek_v2";
  c.groups = f.Int("n_group", 1, c.experts, v2 ? 1 : 0);
  if (c.groups == 0) f.Need("n_group");
  c.topk_groups = f.Int("topk_group", 1, c.groups, c.groups == 1 ? 1 : 0);
  if (c.topk_groups == 0) f.Need("topk_group");
  if (v2) ReadV2Router(f, c);
  const int in_group = c.experts / c.groups;
  // A noaux_tc group's score is the sum of its two best.
  const int least = c.has_router_bias() ? 2 : 1;
  if (c.experts % c.groups != 0 || in_group < least) {
    throw UserError(f.Where("n_group") + ": " + std::to_string(c.groups) +
                    " must divide n_routed_experts (" + std::to_string(c.experts) +
                    ") into groups of at least " + std::to_string(least));
  }
  const bool limited = c.router != kernels::RouterMethod::kGreedy;
  c.top_k = f.Int("num_experts_per_tok", 1,
                  limited ? std::int64_t{in_group} * c.topk_groups : std::int64_t{c.experts});
  c.norm_topk_prob = f.Bool("norm_topk_prob", !v2);
  if (v2 && c.norm_topk_prob) {
    throw UserError(f.Where("norm_topk_prob") +
                    ": true is not supported for deepseek_v2: implementations disagree on it");
  }
  c.routed_scaling_factor =
      static_cast<float>(f.Number("routed_scaling_factor", 1e-6, 1e6, v2 ? 1.0 : 2.5));
}

// rope_type, or type as older files spell it; both must agree.
std::string RopeType(const Fields& rope) {
  std::string found;
  for (const char* name : {"rope_type", "type"}) {
    const Json* value = rope.Find(name);
    if (!value) continue;
    if (!value->is_string() || (!found.empty() && found != *value)) {
      throw UserError(rope.Where(name) + ": " + Brief(*value) +
                      (found.empty() ? " must be a string" : " disagrees with rope_type"));
    }
    found = value->get<std::string>();
  }
  return found.empty() ? "default" : found;
}

void ReadYarn(const Fields& rope, ModelConfig& c) {
  rope.Only("truncate", true);
  if (rope.Find("attention_factor")) {
    throw UserError(rope.Where("attention_factor") + " is not supported: give mscale instead");
  }
  c.yarn = true;
  c.yarn_original_positions =
      rope.Int("original_max_position_embeddings", 1, std::int64_t{1} << 28, c.max_positions);
  const double ratio = static_cast<double>(c.max_positions) / c.yarn_original_positions;
  c.yarn_factor = rope.Number("factor", 1, 1e6, std::max(ratio, 1.0));
  c.yarn_beta_fast = rope.Number("beta_fast", 1e-3, 1e6, 32);
  c.yarn_beta_slow = rope.Number("beta_slow", 1e-3, 1e6, 1);
  if (c.yarn_beta_fast < c.yarn_beta_slow) {
    throw UserError(rope.Where("beta_fast") + " must be at least beta_slow");
  }
  c.yarn_mscale = rope.Number("mscale", 0, 100, 1);
  c.yarn_mscale_all_dim = rope.Number("mscale_all_dim", 0, 100, 0);
  // transformers uses mscale only beside mscale_all_dim; without it the amplitude takes 1.
  if (c.yarn_mscale == 0 || c.yarn_mscale_all_dim == 0) c.yarn_mscale = 1;
}

void ReadRope(const Json& json, const Fields& f, const std::string& where, ModelConfig& c) {
  const Json* parameters = f.Find("rope_parameters");
  const Json* scaling = f.Find("rope_scaling");
  const char* name = parameters ? "rope_parameters" : "rope_scaling";
  const Json* object = parameters ? parameters : scaling;
  if (parameters && scaling && *parameters != *scaling) {
    throw UserError(f.Where("rope_parameters") + " and rope_scaling both stand and differ");
  }
  if (object && !object->is_object()) {
    throw UserError(f.Where(name) + ": " + Brief(*object) + " must be an object");
  }
  const Json empty = Json::object();
  const Fields rope(object ? *object : empty, where + ": " + name);
  const bool inside = rope.Find("rope_theta") != nullptr;
  const bool outside = f.Find("rope_theta") != nullptr;
  c.rope_theta = inside ? rope.Number("rope_theta", 1.0001, 1e15, 0)
                        : f.Number("rope_theta", 1.0001, 1e15, 10000);
  if (inside && outside && json.at("rope_theta") != object->at("rope_theta")) {
    throw UserError(f.Where("rope_theta") + " stands twice with different values");
  }
  rope.Only("partial_rotary_factor", 1.0);
  const std::string type = RopeType(rope);
  if (type == "yarn") {
    ReadYarn(rope, c);
  } else if (type != "default") {
    throw UserError(f.Where(name) + ": type " + configs::Quote(type) +
                    " is not supported: it must be \"default\" or \"yarn\"");
  }
}

void ReadTokenIds(const Fields& f, ModelConfig& c) {
  c.bos_id = f.Int("bos_token_id", 0, c.vocab_size - 1, -1);
  const Json* eos = f.Find("eos_token_id");
  if (!eos) return;
  const std::string where = f.Where("eos_token_id");
  for (const Json& id : eos->is_array() ? *eos : Json::array({*eos})) {
    c.eos_ids.push_back(static_cast<int>(GetInt(id, where, 0, c.vocab_size - 1)));
  }
}

// Published as "m": 0.1 * mscale * ln(factor) + 1.
double YarnMscale(double factor, double mscale) {
  return factor > 1 ? 0.1 * mscale * kernels::LogDouble(factor) + 1.0 : 1.0;
}

// The pair index that turns `rotations` times over the original context.
double CorrectionDim(const ModelConfig& c, double rotations) {
  constexpr double kTwoPi = 6.283185307179586476925286766559;
  return c.qk_rope_dim * kernels::LogDouble(c.yarn_original_positions / (rotations * kTwoPi)) /
         (2 * kernels::LogDouble(c.rope_theta));
}

// The largest config.json of a published model has 2 KB.
constexpr std::size_t kMaxConfigBytes = std::size_t{16} << 20;

// transformers writes num_nextn_predict_layers 1 into every V3 config it saves, and never the
// layer's tensors.
bool HasMtpTensors(const std::string& model_dir, const ModelConfig& config) {
  const CheckpointReader reader(model_dir);
  const std::string prefix = "model.layers." + std::to_string(config.num_layers) + ".";
  for (const std::string& name : reader.Names()) {
    if (name.compare(0, prefix.size(), prefix) == 0) return true;
  }
  return false;
}

}  // namespace

int ModelConfig::MoeLayersBefore(int layer) const {
  int count = 0;
  for (int i = first_dense; i < layer; ++i) count += IsMoe(i) ? 1 : 0;
  return count;
}

double ModelConfig::attention_scale() const {
  const double scale = 1.0 / std::sqrt(static_cast<double>(qk_dim()));
  if (!yarn || yarn_mscale_all_dim == 0) return scale;
  const double m = YarnMscale(yarn_factor, yarn_mscale_all_dim);
  return scale * m * m;
}

double ModelConfig::rope_amplitude() const {
  if (!yarn) return 1.0;
  return YarnMscale(yarn_factor, yarn_mscale) / YarnMscale(yarn_factor, yarn_mscale_all_dim);
}

std::vector<double> ModelConfig::rope_frequencies() const {
  const int half = qk_rope_dim / 2;
  std::vector<double> inv(half);
  for (int i = 0; i < half; ++i) inv[i] = 1.0 / kernels::Pow(rope_theta, 2.0 * i / qk_rope_dim);
  if (!yarn) return inv;
  const double low = std::max(std::floor(CorrectionDim(*this, yarn_beta_fast)), 0.0);
  const double high = std::min(std::ceil(CorrectionDim(*this, yarn_beta_slow)), qk_rope_dim - 1.0);
  const double width = low == high ? 0.001 : high - low;
  for (int i = 0; i < half; ++i) {
    const double ramp = std::clamp((i - low) / width, 0.0, 1.0);
    inv[i] = inv[i] / yarn_factor * ramp + inv[i] * (1 - ramp);
  }
  return inv;
}

ModelConfig ParseModelConfig(const Json& json, const std::string& where) {
  if (!json.is_object()) throw UserError(where + ": " + Brief(json) + " must be an object");
  const Fields f(json, where);
  RefuseUnsupported(f);
  ModelConfig c;
  ReadQuantization(f, where);
  c.model_type = IsV2(f) ? "deepseek_v2" : "deepseek_v3";
  ReadShape(f, c);
  c.scalar_head = HasScalarHead(f);
  if (c.scalar_head) c.mtp_layers = 0;  // transformers writes none for such a model
  ReadExperts(f, c);
  c.rms_norm_eps = static_cast<float>(f.Number("rms_norm_eps", 1e-12, 1, 1e-6));
  c.tie_word_embeddings = f.Bool("tie_word_embeddings", false) && !c.scalar_head;
  ReadRope(json, f, where, c);
  ReadTokenIds(f, c);
  c.raw = json;
  return c;
}

ModelConfig ReadAnyModelConfig(const std::string& model_dir) {
  configs::JsonLimits limits;
  limits.max_bytes = kMaxConfigBytes;
  limits.max_values = std::size_t{1} << 20;
  ModelConfig config = ParseModelConfig(configs::ReadJsonFile(model_dir, "config.json", limits),
                                        model_dir + "/config.json");
  if (config.mtp_layers > 0 && !HasMtpTensors(model_dir, config)) {
    config.mtp_layers = 0;
    config.raw["num_nextn_predict_layers"] = 0;
  }
  return config;
}

ModelConfig AsRewardModel(const ModelConfig& config) {
  Json raw = config.raw;
  raw["architectures"] =
      Json::array({config.model_type == "deepseek_v2" ? "DeepseekV2ForSequenceClassification"
                                                      : "DeepseekV3ForSequenceClassification"});
  raw["num_nextn_predict_layers"] = 0;
  raw["id2label"] = {{"0", "LABEL_0"}};  // what says num_labels = 1
  raw["label2id"] = {{"LABEL_0", 0}};
  return ParseModelConfig(raw, "the reward model's config.json");
}

ModelConfig ReadModelConfig(const std::string& model_dir, bool scalar_head) {
  const std::string path = model_dir + "/config.json";
  ModelConfig config = ReadAnyModelConfig(model_dir);
  if (config.scalar_head && !scalar_head) {
    throw UserError(path + ": architectures: a reward model (" +
                    Brief(config.raw["architectures"]) +
                    ") scores texts and generates none; name it in rewards: {\"model\": DIR}");
  }
  if (scalar_head && !config.scalar_head) {
    throw UserError(path + ": architectures: a reward model must be a " +
                    std::string(config.model_type == "deepseek_v2" ? "DeepseekV2" : "DeepseekV3") +
                    "ForSequenceClassification, with score.weight [1, hidden_size]");
  }
  return config;
}

}  // namespace temper::engine
