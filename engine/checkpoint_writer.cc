// A model folder in Hugging Face layout, written tensor by tensor.
#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/json.h"
#include "engine/checkpoint.h"
#include "kernels/linear.h"

namespace temper::engine {
namespace {

constexpr const char* kScaleSuffix = "_scale_inv";
constexpr std::uint64_t kMaxTokenizerFile = std::uint64_t{256} << 20;

struct Planned {
  const TensorSpec* spec;
  std::vector<std::string> names;  // the tensor and its copies
  Dtype dtype;
  std::size_t shard;
};

std::vector<std::int64_t> ScaleShape(const TensorSpec& spec) {
  std::vector<std::int64_t> shape;
  for (const std::int64_t n : spec.shape)
    shape.push_back((n + kernels::kBlock - 1) / kernels::kBlock);
  return shape;
}

// Copies lie directly behind their source, so that one reading of its values serves all.
std::vector<Planned> Plan(const std::vector<TensorSpec>& specs, const ModelConfig& config,
                          const std::function<Dtype(const TensorSpec&)>& dtype,
                          std::uint64_t shard_bytes, std::size_t* shards, std::uint64_t* total) {
  std::vector<Planned> plan;
  std::uint64_t in_shard = 0;
  *total = 0;
  *shards = 1;
  for (const TensorSpec& spec : specs) {
    Planned p{&spec, {spec.name}, dtype(spec), 0};
    for (const auto& [copy, source] : CopiedTensors(config)) {
      if (source == spec.name) p.names.push_back(copy);
    }
    std::uint64_t bytes =
        static_cast<std::uint64_t>(spec.count()) * DtypeSize(p.dtype) * p.names.size();
    if (p.dtype == Dtype::kF8E4m3) {
      const std::vector<std::int64_t> blocks = ScaleShape(spec);
      bytes += static_cast<std::uint64_t>(blocks[0] * blocks[1]) * sizeof(float);
    }
    if (in_shard > 0 && in_shard + bytes > shard_bytes) {
      ++*shards;
      in_shard = 0;
    }
    in_shard += bytes;
    *total += bytes;
    p.shard = *shards - 1;
    plan.push_back(std::move(p));
  }
  return plan;
}

std::string ShardName(std::size_t shard, std::size_t shards) {
  if (shards == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, shards);
  return name;
}

void WriteIndex(const std::string& dir, const std::vector<Planned>& plan, std::size_t shards,
                std::uint64_t total) {
  std::map<std::string, std::string> weight_map;
  for (const Planned& p : plan) {
    for (const std::string& name : p.names) weight_map[name] = ShardName(p.shard, shards);
    if (p.dtype == Dtype::kF8E4m3)
      weight_map[p.spec->name + kScaleSuffix] = ShardName(p.shard, shards);
  }
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  configs::WriteWholeFile(dir + "/model.safetensors.index.json", index.dump(2) + "\n");
}

void WriteConfig(const std::string& dir, const ModelConfig& config, bool full, bool coded) {
  Json raw = config.raw;
  const char* name = full ? "float32" : "bfloat16";
  raw.erase("quantization_config");  // that of the model it came from
  if (coded) {
    raw["quantization_config"] = {{"quant_method", "fp8"},
                                  {"fmt", "e4m3"},
                                  {"activation_scheme", "dynamic"},
                                  {"weight_block_size", {kernels::kBlock, kernels::kBlock}}};
  }
  raw["torch_dtype"] = name;
  // The newer spelling of the same field; transformers would prefer it.
  if (raw.contains("dtype")) raw["dtype"] = name;
  configs::WriteWholeFile(dir + "/config.json", raw.dump(2) + "\n");
}

void CopyTokenizer(const std::string& from, const std::string& to) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                           "generation_config.json"}) {
    const std::string path = from + "/" + name;
    if (!configs::Exists(path)) continue;
    configs::WriteWholeFile(to + "/" + name, configs::ReadWholeFile(path, kMaxTokenizerFile));
  }
}

/// `write` gives a planned tensor's bytes to the writer, once a name.
void WriteFolder(const std::string& dir, const ModelConfig& config,
                 const std::function<Dtype(const TensorSpec&)>& dtype,
                 const std::string& tokenizer_dir, std::uint64_t shard_bytes,
                 const std::function<void(const Planned&, SafetensorsWriter&)>& write) {
  const std::vector<TensorSpec> specs = RequiredTensors(config);
  std::size_t shards = 0;
  std::uint64_t total = 0;
  const std::vector<Planned> plan = Plan(specs, config, dtype, shard_bytes, &shards, &total);
  bool full = false, coded = false;
  std::size_t next = 0;
  for (std::size_t shard = 0; shard < shards; ++shard) {
    std::vector<SafetensorsWriter::Entry> entries;
    for (const Planned& p : plan) {
      full = full || (p.dtype == Dtype::kF32 && p.spec->kind == TensorSpec::Kind::kEmbedding);
      coded = coded || p.dtype == Dtype::kF8E4m3;
      if (p.shard != shard) continue;
      for (const std::string& name : p.names) entries.push_back({name, p.dtype, p.spec->shape});
      if (p.dtype == Dtype::kF8E4m3)
        entries.push_back({p.spec->name + kScaleSuffix, Dtype::kF32, ScaleShape(*p.spec)});
    }
    SafetensorsWriter writer(dir + "/" + ShardName(shard, shards), std::move(entries));
    for (; next < plan.size() && plan[next].shard == shard; ++next) write(plan[next], writer);
    writer.Close();
  }
  if (shards > 1) WriteIndex(dir, plan, shards, total);
  WriteConfig(dir, config, full, coded);
  CopyTokenizer(tokenizer_dir, dir);
  configs::SyncFolder(dir);
}

}  // namespace

void WriteCheckpoint(const std::string& dir, const ModelConfig& config, Dtype dtype,
                     const std::string& tokenizer_dir,
                     const std::function<std::span<const float>(const TensorSpec&)>& get,
                     std::uint64_t shard_bytes) {
  if (dtype != Dtype::kF32 && dtype != Dtype::kBf16) {
    throw UserError(dir + ": weights are written as fp32 or bf16, not as " + DtypeName(dtype));
  }
  const auto dtype_of = [&](const TensorSpec& spec) {
    return spec.kind == TensorSpec::Kind::kRouterBias ? Dtype::kF32 : dtype;
  };
  WriteFolder(dir, config, dtype_of, tokenizer_dir, shard_bytes,
              [&](const Planned& p, SafetensorsWriter& writer) {
                const std::span<const float> values = get(*p.spec);
                for (std::size_t i = 0; i < p.names.size(); ++i) writer.WriteFloats(values);
              });
}

void WriteCheckpoint(const std::string& dir, const ModelConfig& config,
                     const std::function<Dtype(const TensorSpec&)>& dtype,
                     const std::string& tokenizer_dir,
                     const std::function<StoredTensor(const TensorSpec&)>& get,
                     std::uint64_t shard_bytes) {
  WriteFolder(dir, config, dtype, tokenizer_dir, shard_bytes,
              [&](const Planned& p, SafetensorsWriter& writer) {
                const StoredTensor tensor = get(*p.spec);
                for (std::size_t i = 0; i < p.names.size(); ++i) writer.Write(tensor.bytes);
                if (p.dtype == Dtype::kF8E4m3) writer.Write(tensor.scales);
              });
}

}  // namespace temper::engine
