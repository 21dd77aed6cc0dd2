#include "engine/tensor_places.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "configs/error.h"
#include "configs/json.h"
#include "kernels/linear.h"

namespace temper::engine {
namespace {

using configs::Quote;
using Shape = std::vector<std::int64_t>;

constexpr const char* kScaleSuffix = "_scale_inv";

std::int64_t Blocks(std::int64_t n) { return (n + kernels::kBlock - 1) / kernels::kBlock; }

std::string ShapeText(const Shape& shape) {
  std::string out = "[";
  for (const std::int64_t d : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(d);
  return out + "]";
}

bool SameBytes(const CheckpointReader& reader, const std::string& a, const std::string& b) {
  const std::uint64_t bytes = reader.Info(a).end - reader.Info(a).begin;
  constexpr std::uint64_t kChunk = std::uint64_t{1} << 20;
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

// "P.experts.7.up_proj.weight" -> {"P.experts.", 7, "up_proj"}.
struct ExpertName {
  std::string prefix;
  int expert;
  std::string matrix;
};
std::optional<ExpertName> ParseExpert(const std::string& name) {
  constexpr std::string_view kMark = ".mlp.experts.", kEnd = ".weight";
  const std::size_t at = name.find(kMark);
  if (at == name.npos) return {};
  const std::size_t number = at + kMark.size(), dot = name.find('.', number);
  return ExpertName{name.substr(0, number), std::stoi(name.substr(number, dot - number)),
                    name.substr(dot + 1, name.size() - kEnd.size() - dot - 1)};
}

// Holds the folder against the table and collects every disagreement.
class Comparison {
 public:
  Comparison(const std::string& dir, const CheckpointReader& reader, const ModelConfig& config)
      : dir_(dir), reader_(reader), config_(config) {}

  std::vector<TensorPlace> Run(const std::vector<TensorSpec>& specs) {
    std::vector<TensorPlace> places;
    for (const TensorSpec& spec : specs) places.push_back(Place(spec));
    auto copies = CopiedTensors(config_);
    // Some writers repeat the tied head.
    if (config_.tie_word_embeddings) {
      copies.emplace_back("lm_head.weight", "model.embed_tokens.weight");
    }
    for (const auto& [copy, source] : copies) CheckCopy(copy, source);
    for (const std::string& name : reader_.Names()) {
      if (known_.count(name) == 0 && !IsDerived(name)) {
        Note(Quote(name) + " is not a tensor of this model");
      }
    }
    if (count_ == 0) return places;
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
  TensorPlace Place(const TensorSpec& spec) {
    if (!reader_.Has(spec.name)) {
      if (const auto expert = ParseExpert(spec.name)) {
        const bool down = expert->matrix == "down_proj";
        const std::string stacked = expert->prefix + (down ? "down_proj" : "gate_up_proj");
        if (reader_.Has(stacked)) return PlaceStacked(spec, *expert, stacked);
      }
      Note(Quote(spec.name) + " is missing");
      return {};
    }
    const bool matrix =
        spec.kind == TensorSpec::Kind::kLinear || spec.kind == TensorSpec::Kind::kMtpLinear;
    return Check(spec.name, spec.shape, matrix);
  }
  // Stacked experts are checked at their first part and found again for the others.
  TensorPlace PlaceStacked(const TensorSpec& spec, const ExpertName& name,
                           const std::string& stacked) {
    const std::int64_t rows = spec.shape[0], k = spec.shape[1];
    const bool down = name.matrix == "down_proj";
    const std::int64_t all_rows = down ? rows : 2 * rows, experts = config_.experts;
    auto found = stacked_.find(stacked);
    if (found == stacked_.end()) {
      const TensorPlace whole = Check(stacked, {experts, all_rows, k}, /*matrix=*/true);
      if (whole.dtype == Dtype::kF8E4m3 && !down && rows % kernels::kBlock != 0) {
        Note(Quote(stacked) + " has blocks of " + std::to_string(kernels::kBlock) +
             " rows that gate and up share: experts of " + std::to_string(rows) +
             " rows are read as F8_E4M3 only unstacked");
      }
      found = stacked_.emplace(stacked, whole).first;
    }
    TensorPlace place = found->second;
    const std::int64_t row = name.expert * all_rows + (name.matrix == "up_proj" ? rows : 0);
    place.first = row * k;
    place.first_scale =
        (name.expert * Blocks(all_rows) + (name.matrix == "up_proj" ? Blocks(rows) : 0)) *
        Blocks(k);
    return place;
  }
  TensorPlace Check(const std::string& name, const Shape& shape, bool matrix) {
    known_.insert(name);
    const TensorInfo& info = reader_.Info(name);
    if (info.shape != shape) {
      Note(Quote(name) + " has shape " + ShapeText(info.shape) + " instead of " + ShapeText(shape));
    }
    TensorPlace place{name, info.dtype, 0, {}, 0};
    if (info.dtype == Dtype::kF8E4m3) {
      CheckScale(name, shape, matrix, &place);
    } else if (info.dtype != Dtype::kF32 && info.dtype != Dtype::kBf16 &&
               info.dtype != Dtype::kF16) {
      Note(Quote(name) + " has dtype " + DtypeName(info.dtype) + " instead of F32, BF16 or F16");
    }
    return place;
  }
  void CheckScale(const std::string& tensor, const Shape& of, bool matrix, TensorPlace* place) {
    if (!matrix) {
      Note(Quote(tensor) + " has dtype F8_E4M3, which only matrices of layers may have");
      return;
    }
    const std::string name = tensor + kScaleSuffix;
    place->scale = name;
    known_.insert(name);
    if (!reader_.Has(name)) {
      Note(Quote(name) + " is missing: " + Quote(tensor) + " is F8_E4M3");
      return;
    }
    const TensorInfo& info = reader_.Info(name);
    Shape shape = of;
    for (std::size_t d = shape.size() - 2; d < shape.size(); ++d) shape[d] = Blocks(shape[d]);
    if (info.shape != shape) {
      Note(Quote(name) + " has shape " + ShapeText(info.shape) + " instead of " + ShapeText(shape));
    }
    if (info.dtype != Dtype::kF32 && info.dtype != Dtype::kF8E8m0) {
      Note(Quote(name) + " has dtype " + DtypeName(info.dtype) + " instead of F32 or F8_E8M0");
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
  std::map<std::string, TensorPlace> stacked_;
  std::string notes_;
  int count_ = 0;
};

}  // namespace

std::vector<TensorPlace> FindTensors(const std::string& dir, const CheckpointReader& reader,
                                     const ModelConfig& config,
                                     const std::vector<TensorSpec>& specs) {
  return Comparison(dir, reader, config).Run(specs);
}

}  // namespace temper::engine
