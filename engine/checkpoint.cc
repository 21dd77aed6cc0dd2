#include "engine/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/json.h"
#include "kernels/fp8.h"
#include "kernels/linear.h"

namespace temper::engine {
namespace {

using configs::Quote;

constexpr const char* kScaleSuffix = "_scale_inv";

std::int64_t Blocks(std::int64_t n) { return (n + kernels::kBlock - 1) / kernels::kBlock; }

std::string ShapeText(const std::vector<std::int64_t>& shape) {
  std::string out = "[";
  for (const std::int64_t d : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(d);
  return out + "]";
}

bool SameBytes(const CheckpointReader& reader, const std::string& a, const std::string& b) {
  const std::uint64_t bytes = reader.Info(a).end - reader.Info(a).begin;
  constexpr std::uint64_t kChunk = std::uint64_t{4} << 20;
  std::vector<std::byte> one, two;
  for (std::uint64_t at = 0; at < bytes; at += kChunk) {
    one.resize(std::min(kChunk, bytes - at));
    two.resize(one.size());
    reader.File(a).ReadPart(a, at, one);
    reader.File(b).ReadPart(b, at, two);
    if (std::memcmp(one.data(), two.data(), one.size()) != 0) return false;
  }
  return true;
}

// Holds the folder against the table and collects every disagreement.
class Comparison {
 public:
  Comparison(const std::string& dir, const CheckpointReader& reader, const ModelConfig& config)
      : dir_(dir), reader_(reader), config_(config) {}

  void Run(const std::vector<TensorSpec>& specs) {
    for (const TensorSpec& spec : specs) CheckRequired(spec);
    auto copies = CopiedTensors(config_);
    // Some writers repeat the tied head.
    if (config_.tie_word_embeddings && !config_.scalar_head) {
      copies.emplace_back("lm_head.weight", "model.embed_tokens.weight");
    }
    for (const auto& [copy, source] : copies) CheckCopy(copy, source);
    for (const std::string& name : reader_.Names()) {
      if (known_.count(name) == 0 && !IsDerived(name)) {
        Note(Quote(name) + " is not a tensor of this model");
      }
    }
    if (count_ == 0) return;
    throw UserError(dir_ + ": the weights do not fit config.json: " + notes_ +
                    (count_ > kShown ? "; and " + std::to_string(count_ - kShown) + " more" : ""));
  }

 private:
  static constexpr int kShown = 20;

  void Note(const std::string& note) {
    if (++count_ <= kShown) notes_ += (notes_.empty() ? "" : "; ") + note;
  }
  // Old checkpoints carry the rotary table, which the config determines.
  static bool IsDerived(const std::string& name) {
    constexpr std::string_view kSuffix = ".rotary_emb.inv_freq";
    return name.size() > kSuffix.size() &&
           name.compare(name.size() - kSuffix.size(), kSuffix.size(), kSuffix) == 0;
  }
  void CheckRequired(const TensorSpec& spec) {
    known_.insert(spec.name);
    if (!reader_.Has(spec.name)) {
      Note(Quote(spec.name) + " is missing");
      return;
    }
    const TensorInfo& info = reader_.Info(spec.name);
    if (info.shape != spec.shape) {
      Note(Quote(spec.name) + " has shape " + ShapeText(info.shape) + " instead of " +
           ShapeText(spec.shape));
    }
    if (info.dtype == Dtype::kF8E4m3) {
      CheckScale(spec);
    } else if (info.dtype != Dtype::kF32 && info.dtype != Dtype::kBf16 &&
               info.dtype != Dtype::kF16) {
      Note(Quote(spec.name) + " has dtype " + DtypeName(info.dtype) +
           " instead of F32, BF16 or F16");
    }
  }
  void CheckScale(const TensorSpec& spec) {
    if (spec.kind != TensorSpec::Kind::kLinear) {
      Note(Quote(spec.name) + " has dtype F8_E4M3, which only matrices of layers may have");
      return;
    }
    const std::string name = spec.name + kScaleSuffix;
    known_.insert(name);
    if (!reader_.Has(name)) {
      Note(Quote(name) + " is missing: " + Quote(spec.name) + " is F8_E4M3");
      return;
    }
    const TensorInfo& info = reader_.Info(name);
    const std::vector<std::int64_t> shape{Blocks(spec.shape[0]), Blocks(spec.shape[1])};
    if (info.shape != shape) {
      Note(Quote(name) + " has shape " + ShapeText(info.shape) + " instead of " + ShapeText(shape));
    }
    if (info.dtype != Dtype::kF32) {
      Note(Quote(name) + " has dtype " + DtypeName(info.dtype) + " instead of F32");
    }
  }
  void CheckCopy(const std::string& copy, const std::string& source) {
    known_.insert(copy);
    if (!reader_.Has(copy) || !reader_.Has(source)) return;
    const TensorInfo& a = reader_.Info(copy);
    const TensorInfo& b = reader_.Info(source);
    if (a.shape != b.shape || a.dtype != b.dtype || !SameBytes(reader_, copy, source)) {
      Note(Quote(copy) + " differs from " + Quote(source) + ", with which it is shared");
    }
  }

  const std::string& dir_;
  const CheckpointReader& reader_;
  const ModelConfig& config_;
  std::set<std::string> known_;
  std::string notes_;
  int count_ = 0;
};

}  // namespace

void ReadCheckpoint(const std::string& model_dir, const ModelConfig& config,
                    const std::function<void(const TensorSpec&, const TensorData&)>& give) {
  const CheckpointReader reader(model_dir);
  const std::vector<TensorSpec> specs = RequiredTensors(config);
  Comparison(model_dir, reader, config).Run(specs);
  const auto where = [&](const std::string& name) {
    return reader.File(name).path() + ": tensor " + Quote(name) + ": ";
  };
  for (const TensorSpec& spec : specs) {
    if (reader.Info(spec.name).dtype == Dtype::kF8E4m3) {
      std::vector<std::uint8_t> codes(std::size_t(spec.count()));
      reader.File(spec.name).Read(spec.name, std::as_writable_bytes(std::span(codes)));
      const std::vector<float> scales = reader.ReadFloats(spec.name + kScaleSuffix);
      const std::int64_t k = spec.shape[1];
      const std::string bad =
          kernels::CheckFp8Weight(codes.data(), k, int(spec.shape[0]), int(k), scales.data());
      if (!bad.empty()) throw UserError(where(spec.name) + bad);
      give(spec, {{}, codes, scales});
      continue;
    }
    const std::vector<float> values = reader.ReadFloats(spec.name);
    const auto bad =
        std::find_if_not(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
    if (bad != values.end()) {
      throw UserError(where(spec.name) + "element " + std::to_string(bad - values.begin()) +
                      " is not finite");
    }
    give(spec, {values, {}, {}});
  }
}

void ReadCheckpointValues(
    const std::string& model_dir, const ModelConfig& config,
    const std::function<void(const TensorSpec&, std::span<const float>)>& give) {
  kernels::ThreadPool pool(1);
  ReadCheckpoint(model_dir, config, [&](const TensorSpec& spec, const TensorData& data) {
    if (data.codes.empty()) return give(spec, data.values);
    const int n = int(spec.shape[0]), k = int(spec.shape[1]);
    std::vector<float> values(data.codes.size());
    kernels::DequantizeWeight(data.codes.data(), k, n, k, data.scales.data(), values.data(), k,
                              pool);
    give(spec, values);
  });
}

}  // namespace temper::engine
