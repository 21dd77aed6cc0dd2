#include "engine/adapter.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/json.h"
#include "engine/safetensors.h"
#include "kernels/linear.h"

namespace temper::engine {

namespace {

constexpr std::uint64_t kConfigBytes = std::uint64_t{1} << 20;
constexpr char kPrefix[] = "base_model.model.";
constexpr char kConfigFile[] = "/adapter_config.json", kTensorFile[] = "/adapter_model.safetensors";

std::string Module(const std::string& weight) {
  constexpr std::string_view kSuffix = ".weight";
  return weight.substr(0, weight.size() - kSuffix.size());
}
std::string NameOf(const std::string& weight, const char* factor) {
  return kPrefix + Module(weight) + ".lora_" + factor + ".weight";
}

/// Settings that make the product something else, unless they have this value (or are absent or null).
void RefuseOthers(const Json& json, const std::string& path) {
  const std::pair<const char*, Json> kPlain[] = {
      {"use_dora", false},       {"fan_in_fan_out", false}, {"bias", "none"},          {"lora_bias", false},
      {"rank_pattern", Json::object()}, {"alpha_pattern", Json::object()}, {"modules_to_save", Json::array()},
      {"target_parameters", Json::array()}, {"trainable_token_indices", Json::array()}, {"layer_replication", Json::array()}};
  for (const auto& [key, plain] : kPlain) {
    if (!json.contains(key) || json[key].is_null() || json[key] == plain) continue;
    throw UserError(path + ": " + key + ": " + configs::Brief(json[key]) + " is not supported; only " + plain.dump() + " is");
  }
}

}  // namespace

float AdapterConfig::scale() const {
  return float(use_rslora ? lora_alpha / std::sqrt(double(r)) : lora_alpha / double(r));
}

bool AdapterConfig::Targets(const std::string& weight) const {
  if (!weight.ends_with(".weight")) return false;
  const std::string module = Module(weight);
  return std::any_of(target_modules.begin(), target_modules.end(),
                     [&](const std::string& t) { return module == t || module.ends_with("." + t); });
}

AdapterConfig ReadAdapterConfig(const std::string& dir) {
  const std::string path = dir + kConfigFile;
  const Json json = configs::ParseJson(configs::ReadWholeFile(path, kConfigBytes), path);
  if (!json.is_object() || json.value("peft_type", Json()) != "LORA")
    throw UserError(path + ": peft_type must be \"LORA\"");
  RefuseOthers(json, path);
  AdapterConfig config;
  const auto need = [&](const char* key) -> const Json& {
    if (!json.contains(key)) throw UserError(path + ": " + key + " is missing");
    return json[key];
  };
  config.r = int(configs::GetInt(need("r"), path + ": r", 1, 1 << 16));
  const Json& alpha = need("lora_alpha");
  if (!alpha.is_number() || !std::isfinite(alpha.get<double>()) || alpha <= 0)
    throw UserError(path + ": lora_alpha: " + configs::Brief(alpha) + " must be a number > 0");
  config.lora_alpha = alpha.get<double>();
  const Json rslora = json.value("use_rslora", Json(false));
  config.use_rslora = rslora.is_boolean() && rslora.get<bool>();
  const Json targets = json.value("target_modules", Json());
  if (targets.is_array()) {
    for (const Json& target : targets) {
      if (target.is_string()) config.target_modules.push_back(target.get<std::string>());
    }
  }
  const Json base = json.value("base_model_name_or_path", Json());
  if (base.is_string()) config.base_model = base.get<std::string>();
  return config;
}

std::vector<AdapterMatrix> ReadAdapter(const std::string& dir, const AdapterConfig& config,
                                       const std::vector<TensorSpec>& specs) {
  const SafetensorsFile file(dir + kTensorFile);
  std::map<std::string, bool> known;
  std::vector<AdapterMatrix> matrices;
  for (const TensorSpec& spec : specs) {
    if (spec.shape.size() != 2 || !spec.name.ends_with(".weight")) continue;
    const std::string a = NameOf(spec.name, "A"), b = NameOf(spec.name, "B");
    if (!file.Has(a) && !file.Has(b)) continue;
    const auto read = [&](const std::string& name, std::int64_t rows, std::int64_t columns) {
      known[name] = true;
      if (!file.Has(name)) throw UserError(file.path() + ": " + name + " is missing; its partner is there");
      if (file.tensors().at(name).shape != std::vector<std::int64_t>{rows, columns}) {
        throw UserError(file.path() + ": " + name + " must be [" + std::to_string(rows) + ", " + std::to_string(columns) +
                        "]: the rank and the model's weight");
      }
      std::vector<float> values = file.ReadFloats(name);
      if (!std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); }))
        throw UserError(file.path() + ": " + name + " has a value that is not finite");
      return values;
    };
    matrices.push_back({spec.name, read(a, config.r, spec.shape[1]), read(b, spec.shape[0], config.r)});
  }
  for (const auto& [name, info] : file.tensors()) {
    if (!known.count(name)) throw UserError(file.path() + ": " + name + " is no adapter of a matrix of this model");
  }
  if (matrices.empty()) throw UserError(file.path() + ": holds no tensor");
  return matrices;
}

void WriteAdapter(const std::string& dir, const AdapterConfig& config, const std::vector<AdapterMatrix>& matrices) {
  std::vector<SafetensorsWriter::Entry> entries;
  for (const AdapterMatrix& m : matrices) {
    entries.push_back({NameOf(m.weight, "A"), Dtype::kF32, {config.r, std::int64_t(m.a.size()) / config.r}});
    entries.push_back({NameOf(m.weight, "B"), Dtype::kF32, {std::int64_t(m.b.size()) / config.r, config.r}});
  }
  SafetensorsWriter writer(dir + kTensorFile, std::move(entries));
  for (const AdapterMatrix& m : matrices) {
    writer.WriteFloats(m.a);
    writer.WriteFloats(m.b);
  }
  writer.Close();
  const Json json = {{"peft_type", "LORA"},
                     {"task_type", "CAUSAL_LM"},
                     {"base_model_name_or_path", config.base_model},
                     {"r", config.r},
                     {"lora_alpha", config.lora_alpha},
                     {"lora_dropout", 0.0},
                     {"use_rslora", config.use_rslora},
                     {"target_modules", config.target_modules},
                     {"bias", "none"},
                     {"fan_in_fan_out", false},
                     {"inference_mode", true},
                     {"init_lora_weights", true}};
  configs::WriteWholeFile(dir + kConfigFile, json.dump(2) + "\n");
}

AdapterProduct::AdapterProduct(const float* a, int r, int k) : r_(r), k_(k), packed_(kernels::PackedSize(k, r)) {
  kernels::PackLinearTransposed(a, k, k, r, packed_.data());
}

void AdapterProduct::AddTo(float* w, const float* b, std::int64_t rows, float scale, kernels::ThreadPool& pool) const {
  constexpr std::int64_t kRows = 128;
  AlignedFloats product(std::size_t(std::min(rows, kRows)) * std::size_t(k_));
  const kernels::LinearWeight weight{packed_.data(), k_, r_};
  for (std::int64_t first = 0; first < rows; first += kRows) {
    const std::int64_t m = std::min(kRows, rows - first);
    kernels::Linear(weight, b + first * r_, r_, int(m), product.data(), k_, pool);
    float* to = w + first * k_;
    for (std::int64_t i = 0; i < m * k_; ++i) to[i] += scale * product.data()[i];
  }
}

}  // namespace temper::engine
