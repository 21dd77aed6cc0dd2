#include "learner/lora.h"

#include <algorithm>
#include <cmath>

#include "configs/error.h"
#include "kernels/sampling.h"
#include "learner/core/gemm.h"

namespace temper::learner {

namespace {

std::string Factor(const std::string& weight, const char* factor) {
  return weight.substr(0, weight.rfind('.')) + ".lora_" + factor + ".weight";
}

}  // namespace

Lora::Lora(const configs::Lora& config, const Parameters& parameters, const Shard& shard)
    : config_{config.r, config.lora_alpha, config.use_rslora, config.target_modules, ""},
      shard_(shard) {
  std::int64_t base = 0;
  for (std::size_t i = 0; i < parameters.entries().size(); ++i) {
    const engine::TensorSpec& spec = parameters.entries()[i].spec;
    const bool matrix = spec.kind == engine::TensorSpec::Kind::kLinear;
    if (!matrix || parameters.IsMtp(spec.name) || !config_.Targets(spec.name)) continue;
    Matrix m{i, spec.shape[0], spec.shape[1], size_, 0, base};
    m.b = m.a + config.r * m.k;
    tensors_.push_back({Factor(spec.name, "A"), {config.r, m.k}, m.a});
    tensors_.push_back({Factor(spec.name, "B"), {m.n, config.r}, m.b});
    size_ = m.b + m.n * config.r;
    base += m.n * m.k;
    index_[spec.name] = matrices_.size();
    matrices_.push_back(m);
    entries_.push_back(i);
  }
  if (matrices_.empty())
    throw UserError("lora.target_modules: the model has no such matrix in its main layers");
  base_ = engine::AlignedFloats(std::size_t(base));
  for (engine::AlignedFloats* buffer : {&values_, &gradients_})
    *buffer = engine::AlignedFloats(std::size_t(size_));
  for (engine::AlignedFloats* buffer : {&moment1_, &moment2_})
    *buffer = engine::AlignedFloats(std::size_t(shard.end(size_) - shard.begin(size_)));
}

void Lora::SetBase(const Parameters& parameters) {
  for (const Matrix& m : matrices_) {
    const std::span<const float> value = parameters.Value(parameters.entries()[m.entry]);
    std::copy(value.begin(), value.end(), base_.data() + m.base);
  }
}

void Lora::Begin(const Parameters& parameters, const std::string& adapter_dir, std::uint64_t seed) {
  SetBase(parameters);
  std::uint32_t number = 0;
  for (const Matrix& m : matrices_) {
    const double bound = 1 / std::sqrt(double(m.k));
    for (std::int64_t i = 0; i < config_.r * m.k; ++i) {
      const double u = kernels::SampleUniform(seed, std::uint64_t(i), number, 0);
      values_.data()[m.a + i] = float((2 * u - 1) * bound);
    }
    ++number;
  }
  // A folder may have fewer matrices than lora.target_modules: the others begin as above.
  if (!adapter_dir.empty()) {
    const engine::AdapterConfig found = engine::ReadAdapterConfig(adapter_dir);
    if (found.r != config_.r || found.lora_alpha != config_.lora_alpha ||
        found.use_rslora != config_.use_rslora) {
      throw UserError(adapter_dir + ": an adapter of r " + std::to_string(found.r) +
                      ", lora_alpha " + configs::Brief(Json(found.lora_alpha)) + ", use_rslora " +
                      (found.use_rslora ? "true" : "false") + "; set lora's keys to these");
    }
    std::vector<engine::TensorSpec> specs;
    for (const auto& entry : parameters.entries()) specs.push_back(entry.spec);
    const auto read = engine::ReadAdapter(adapter_dir, found, specs);
    for (const engine::AdapterMatrix& matrix : read) {
      const auto at = index_.find(matrix.weight);
      if (at == index_.end())
        throw UserError(adapter_dir + ": " + matrix.weight + " is not of lora.target_modules");
      const Matrix& m = matrices_[at->second];
      std::copy(matrix.a.begin(), matrix.a.end(), values_.data() + m.a);
      std::copy(matrix.b.begin(), matrix.b.end(), values_.data() + m.b);
    }
  }
}

void Lora::Merge(Parameters& parameters, kernels::ThreadPool& pool) const {
  const float scale = config_.scale();
  for (const Matrix& m : matrices_) {
    const std::span<float> to = parameters.MutableValue(parameters.entries()[m.entry]);
    std::copy_n(base_.data() + m.base, to.size(), to.data());
    const engine::AdapterProduct product(values_.data() + m.a, config_.r, int(m.k));
    product.AddTo(to.data(), values_.data() + m.b, m.n, scale, pool);
  }
}

void Lora::TakeGradients(Parameters& parameters, kernels::ThreadPool& pool) {
  const int r = config_.r;
  std::vector<Product> to_a, to_b;
  for (const Matrix& m : matrices_) {
    const float* dw = parameters.gradients() + parameters.entries()[m.entry].offset;
    const int n = int(m.n), k = int(m.k);
    to_a.push_back({r, k, n, values_.data() + m.b, r, dw, k, gradients_.data() + m.a, k});
    to_b.push_back({n, r, k, dw, k, values_.data() + m.a, k, gradients_.data() + m.b, r});
  }
  Multiply(Form::kColumns, to_a.data(), int(to_a.size()), pool);
  Multiply(Form::kOutputs, to_b.data(), int(to_b.size()), pool);
  const float scale = config_.scale();
  for (std::int64_t i = 0; i < size_; ++i) gradients_.data()[i] *= scale;
}

std::vector<AdamwSegment> Lora::Segments() const {
  std::vector<AdamwSegment> segments;
  for (const TrainedBuffers::Tensor& tensor : tensors_)
    segments.push_back({tensor.offset, tensor.offset + tensor.count(), true, true});
  return segments;
}

void Lora::Write(const std::string& dir, const std::string& base_model, const float* values) const {
  engine::AdapterConfig config = config_;
  config.base_model = base_model;
  std::vector<engine::AdapterMatrix> matrices;
  for (const auto& [weight, at] : index_) {
    const Matrix& m = matrices_[at];
    const float *a = values + m.a, *b = values + m.b;
    matrices.push_back({weight, {a, a + config_.r * m.k}, {b, b + m.n * config_.r}});
  }
  engine::WriteAdapter(dir, config, matrices);
}

}  // namespace temper::learner
