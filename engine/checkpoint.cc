#include "engine/checkpoint.h"

#include <algorithm>

#include "kernels/bf16.h"
#include "kernels/linear.h"

namespace temper::engine {

void ReadCheckpoint(const std::string& model_dir, const ModelConfig& config,
                    const std::function<void(const TensorSpec&, const TensorData&)>& give) {
  CheckpointRows files(model_dir, config);
  std::vector<float> values;
  for (std::size_t i = 0; i < files.specs().size(); ++i) {
    const TensorSpec& spec = files.specs()[i];
    const RowData data = files.Read(i, 0, Rows(spec));
    if (data.bf16.empty()) {
      give(spec, {data.values, data.codes, data.scales});
      continue;
    }
    values.resize(data.bf16.size());
    kernels::DecodeBf16(data.bf16.data(), std::int64_t(values.size()), values.data());
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
