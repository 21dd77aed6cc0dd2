// `temper convert`: rows of one folder into another, an adapter merged on the way.
#include <map>
#include <optional>

#include "engine/adapter.h"
#include "engine/checkpoint.h"
#include "engine/new_folder.h"
#include "kernels/bf16.h"
#include "kernels/fp8.h"
#include "kernels/linear.h"

namespace temper::engine {

namespace {

/// Gives rows with an adapter's product added to them.
class Merger {
 public:
  Merger(const std::string& dir, const std::vector<TensorSpec>& specs) : config_(ReadAdapterConfig(dir)) {
    for (AdapterMatrix& matrix : ReadAdapter(dir, config_, specs)) {
      std::string name = matrix.weight;
      matrices_.emplace(std::move(name), std::move(matrix));
    }
  }

  RowData Merge(const TensorSpec& spec, const RowData& in) {
    const auto found = matrices_.find(spec.name);
    if (found == matrices_.end()) return in;
    const AdapterMatrix& matrix = found->second;
    const std::int64_t k = Columns(spec);
    if (spec.name != last_) {
      product_.emplace(matrix.a.data(), config_.r, int(k));
      last_ = spec.name;
    }
    values_.resize(std::size_t(in.rows * k));
    if (!in.codes.empty()) {
      kernels::DequantizeWeight(in.codes.data(), int(k), int(in.rows), int(k), in.scales.data(), values_.data(), int(k), pool_);
    } else if (!in.bf16.empty()) {
      kernels::DecodeBf16(in.bf16.data(), std::int64_t(in.bf16.size()), values_.data());
    } else {
      std::copy(in.values.begin(), in.values.end(), values_.begin());
    }
    product_->AddTo(values_.data(), matrix.b.data() + in.first * config_.r, in.rows, config_.scale(), pool_);
    RowData out;
    out.first = in.first;
    out.rows = in.rows;
    out.values = values_;
    return out;
  }

 private:
  AdapterConfig config_;
  std::map<std::string, AdapterMatrix> matrices_;
  std::string last_;
  std::optional<AdapterProduct> product_;
  std::vector<float> values_;
  kernels::ThreadPool pool_{1};
};

}  // namespace

void ConvertModel(const std::string& in, const Storage& storage, const std::string& out,
                  std::uint64_t shard_bytes, const StoreProgress& progress, const std::string& adapter) {
  const ModelConfig config = ReadModelConfig(in);
  CheckpointRows files(in, config);
  std::map<std::string, std::size_t> index;
  for (std::size_t i = 0; i < files.specs().size(); ++i) index[files.specs()[i].name] = i;
  std::optional<Merger> merger;
  if (!adapter.empty()) merger.emplace(adapter, files.specs());
  NewFolder folder(out);
  const RowSource rows = [&](const TensorSpec& spec, std::int64_t first, std::int64_t count) {
    const RowData data = files.Read(index.at(spec.name), first, count);
    return merger ? merger->Merge(spec, data) : data;
  };
  WriteCheckpoint(folder.path(), config, storage, in, Reporting(config, rows, progress),
                  shard_bytes);
  folder.Commit();
}

}  // namespace temper::engine
