// A model folder in Hugging Face layout, written tensor by tensor.
#include <algorithm>
#include <array>
#include <cmath>
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
#include "kernels/bf16.h"
#include "kernels/linear.h"

namespace temper::engine {
namespace {

constexpr std::uint64_t kMaxTokenizerFile = std::uint64_t{256} << 20;

struct Planned {
  const TensorSpec* spec;
  std::vector<std::string> names;  // the tensor and its copies
  Dtype dtype;
  std::size_t shard;
};

std::int64_t Blocks(std::int64_t n) { return (n + kernels::kBlock - 1) / kernels::kBlock; }

Dtype StoredAs(const TensorSpec& spec, const Storage& storage) {
  if (spec.kind == TensorSpec::Kind::kRouterBias) return Dtype::kF32;
  if (storage.dtype != Dtype::kF8E4m3) return storage.dtype;
  return spec.kind == TensorSpec::Kind::kLinear ? Dtype::kF8E4m3 : Dtype::kBf16;
}

// A tensor's entries in its file: itself and the multipliers of its codes.
std::vector<SafetensorsWriter::Entry> Entries(const Planned& p) {
  std::vector<SafetensorsWriter::Entry> entries;
  for (const std::string& name : p.names) {
    entries.push_back({name, p.dtype, p.spec->shape});
    if (p.dtype != Dtype::kF8E4m3) continue;
    entries.push_back(
        {name + "_scale_inv", Dtype::kF32, {Blocks(p.spec->shape[0]), Blocks(p.spec->shape[1])}});
  }
  return entries;
}

// Copies lie directly behind their source, a matrix and its multipliers in one shard.
std::vector<Planned> Plan(const std::vector<TensorSpec>& specs, const ModelConfig& config,
                          const Storage& storage, std::uint64_t shard_bytes, std::size_t* shards,
                          std::uint64_t* total) {
  std::vector<Planned> plan;
  std::map<std::string, std::vector<std::string>> copies;
  for (const auto& [copy, source] : CopiedTensors(config)) copies[source].push_back(copy);
  std::uint64_t in_shard = 0;
  *total = 0;
  *shards = 1;
  for (const TensorSpec& spec : specs) {
    Planned p{&spec, {spec.name}, StoredAs(spec, storage), 0};
    const auto found = copies.find(spec.name);
    if (found != copies.end())
      p.names.insert(p.names.end(), found->second.begin(), found->second.end());
    std::uint64_t bytes = 0;
    for (const auto& entry : Entries(p)) {
      bytes += static_cast<std::uint64_t>(TensorInfo{entry.dtype, entry.shape}.count()) *
               DtypeSize(entry.dtype);
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

// Rows in any form, stored as the plan says.
class RowWriter {
 public:
  RowWriter(SafetensorsWriter& file, const Storage& storage) : file_(file), storage_(storage) {}

  void Write(const Planned& p, const RowSource& get) {
    const TensorSpec& spec = *p.spec;
    const std::int64_t n = Rows(spec), k = Columns(spec);
    scales_.clear();
    for (std::int64_t first = 0; first < n; first += kernels::kBlock) {
      const std::int64_t rows = std::min<std::int64_t>(kernels::kBlock, n - first);
      const RowData data = get(spec, first, rows);
      if (p.dtype == Dtype::kF8E4m3) {
        WriteCodes(data, int(rows), int(k));
      } else if (p.dtype == Dtype::kBf16 && !data.bf16.empty()) {
        file_.Write(std::as_bytes(data.bf16));
      } else {
        file_.WriteFloats(Values(data, int(rows), int(k)));
      }
    }
    if (p.dtype == Dtype::kF8E4m3) file_.WriteFloats(scales_);
  }

 private:
  std::span<const float> Values(const RowData& data, int rows, int k) {
    if (!data.values.empty()) return data.values;
    values_.resize(std::size_t(rows) * k);
    if (!data.bf16.empty()) {
      kernels::DecodeBf16(data.bf16.data(), std::int64_t(values_.size()), values_.data());
    } else {
      kernels::DequantizeWeight(data.codes.data(), k, rows, k, data.scales.data(), values_.data(),
                                k, pool_);
    }
    return values_;
  }

  // One row of blocks. Codes that are there already stay, except where their multiplier must become
  // a power of two and is none.
  void WriteCodes(const RowData& data, int rows, int k) {
    std::vector<float> scales(data.scales.begin(), data.scales.end());
    std::vector<bool> stays(scales.size());
    for (std::size_t b = 0; b < scales.size(); ++b) {
      int exponent = 0;
      stays[b] =
          storage_.scale == kernels::ScaleRecipe::kFp32 || std::frexp(scales[b], &exponent) == 0.5f;
    }
    codes_.assign(data.codes.begin(), data.codes.end());
    if (data.codes.empty() || std::count(stays.begin(), stays.end(), false) > 0) {
      const std::span<const float> values = Values(data, rows, k);
      codes_.resize(values.size());
      scales.resize(std::size_t(Blocks(k)));
      kernels::QuantizeWeight(values.data(), k, rows, k, storage_.scale, codes_.data(), k,
                              scales.data(), pool_);
      for (std::size_t b = 0; b < stays.size(); ++b) {
        if (!stays[b]) continue;
        scales[b] = data.scales[b];
        const int from = int(b) * kernels::kBlock, width = std::min(kernels::kBlock, k - from);
        for (int r = 0; r < rows; ++r) {
          std::copy_n(data.codes.data() + std::int64_t(r) * k + from, width,
                      codes_.data() + std::int64_t(r) * k + from);
        }
      }
    }
    file_.Write(std::as_bytes(std::span(codes_)));
    scales_.insert(scales_.end(), scales.begin(), scales.end());
  }

  SafetensorsWriter& file_;
  const Storage& storage_;
  kernels::ThreadPool pool_{1};
  std::vector<float> values_, scales_;
  std::vector<std::uint8_t> codes_;
};

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
    for (const auto& entry : Entries(p)) weight_map[entry.name] = ShardName(p.shard, shards);
  }
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  configs::WriteWholeFile(dir + "/model.safetensors.index.json", index.dump(2) + "\n");
}

void WriteConfig(const std::string& dir, const ModelConfig& config, const Storage& storage) {
  Json raw = config.raw;
  const char* name = storage.dtype == Dtype::kF32 ? "float32" : "bfloat16";
  raw.erase("quantization_config");
  raw["torch_dtype"] = name;
  // The newer spelling of the same field; transformers would prefer it.
  if (raw.contains("dtype")) raw["dtype"] = name;
  if (storage.dtype == Dtype::kF8E4m3) {
    Json& q = raw["quantization_config"];
    q = {{"activation_scheme", "dynamic"},
         {"fmt", "e4m3"},
         {"quant_method", "fp8"},
         {"weight_block_size", {kernels::kBlock, kernels::kBlock}}};
    if (storage.scale == kernels::ScaleRecipe::kPow2) q["scale_fmt"] = "ue8m0";
  }
  configs::WriteWholeFile(dir + "/config.json", raw.dump(2) + "\n");
}

void CopyTokenizer(const std::string& from, const std::string& to) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                           "generation_config.json"}) {
    if (!configs::Exists(from + "/" + name)) continue;
    configs::WriteWholeFile(
        to + "/" + name, configs::ReadWholeFile(configs::InputFile(from, name), kMaxTokenizerFile));
  }
}

}  // namespace

Storage ParseStorage(const std::string& dtype, const std::string& scale, const std::string& where) {
  using kernels::ScaleRecipe;
  if (scale != "fp32" && scale != "pow2") {
    throw UserError(where + ": scale " + configs::Quote(scale) + " must be fp32 or pow2");
  }
  const ScaleRecipe recipe = scale == "pow2" ? ScaleRecipe::kPow2 : ScaleRecipe::kFp32;
  if (dtype == "fp32") return {Dtype::kF32, recipe};
  if (dtype == "bf16") return {Dtype::kBf16, recipe};
  if (dtype == "fp8") return {Dtype::kF8E4m3, recipe};
  throw UserError(where + ": " + configs::Quote(dtype) + " must be fp32, bf16 or fp8");
}

void WriteCheckpoint(const std::string& dir, const ModelConfig& config, const Storage& storage,
                     const std::string& tokenizer_dir, const RowSource& get,
                     std::uint64_t shard_bytes) {
  if (storage.dtype != Dtype::kF32 && storage.dtype != Dtype::kBf16 &&
      storage.dtype != Dtype::kF8E4m3) {
    throw UserError(dir + ": weights are written as fp32, bf16 or fp8, not as " +
                    DtypeName(storage.dtype));
  }
  const std::vector<TensorSpec> specs = RequiredTensors(config);
  std::size_t shards = 0;
  std::uint64_t total = 0;
  const std::vector<Planned> plan = Plan(specs, config, storage, shard_bytes, &shards, &total);
  std::size_t next = 0;
  for (std::size_t shard = 0; shard < shards; ++shard) {
    std::vector<SafetensorsWriter::Entry> entries;
    for (std::size_t i = next; i < plan.size() && plan[i].shard == shard; ++i) {
      for (auto& entry : Entries(plan[i])) entries.push_back(std::move(entry));
    }
    SafetensorsWriter file(dir + "/" + ShardName(shard, shards), std::move(entries));
    RowWriter writer(file, storage);
    for (; next < plan.size() && plan[next].shard == shard; ++next) {
      for (std::size_t i = 0; i < plan[next].names.size(); ++i) writer.Write(plan[next], get);
    }
    file.Close();
  }
  if (shards > 1) WriteIndex(dir, plan, shards, total);
  WriteConfig(dir, config, storage);
  CopyTokenizer(tokenizer_dir, dir);
  configs::SyncFolder(dir);
}

void WriteCheckpoint(const std::string& dir, const ModelConfig& config, const Storage& storage,
                     const std::string& tokenizer_dir,
                     const std::function<std::span<const float>(const TensorSpec&)>& get,
                     std::uint64_t shard_bytes) {
  std::span<const float> whole;
  const RowSource rows = [&](const TensorSpec& spec, std::int64_t first, std::int64_t count) {
    if (first == 0) whole = get(spec);
    const std::size_t k = std::size_t(Columns(spec));
    RowData data;
    data.first = first;
    data.rows = count;
    data.values = whole.subspan(std::size_t(first) * k, std::size_t(count) * k);
    return data;
  };
  WriteCheckpoint(dir, config, storage, tokenizer_dir, rows, shard_bytes);
}

RowSource Reporting(const ModelConfig& config, RowSource get, StoreProgress progress) {
  if (!progress) return get;
  const std::size_t total = RequiredTensors(config).size() + CopiedTensors(config).size();
  return [total, get = std::move(get), progress = std::move(progress), done = std::int64_t{0}](
             const TensorSpec& spec, std::int64_t first, std::int64_t rows) mutable {
    const RowData data = get(spec, first, rows);
    if (first + rows == Rows(spec)) progress(++done, std::int64_t(total));
    return data;
  };
}

}  // namespace temper::engine
