#include "learner/parameters.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <stdexcept>

namespace temper::learner {

using Kind = engine::TensorSpec::Kind;

std::int64_t TrainedBuffers::Tensor::count() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

Parameters::Parameters(const engine::ModelConfig& config, bool gradients, bool moments,
                       const Shard& shard)
    : config_(config), shard_(shard) {
  for (engine::TensorSpec& spec : engine::RequiredTensors(config)) {
    index_[spec.name] = entries_.size();
    const std::int64_t count = spec.count();
    tensors_.push_back({spec.name, spec.shape, size_});
    entries_.push_back({std::move(spec), size_});
    size_ += count;
  }
  values_ = engine::AlignedFloats(size_);
  if (!gradients) return;
  gradients_ = engine::AlignedFloats(size_);
  if (!moments) return;
  const auto own = std::size_t(shard.end(size_) - shard.begin(size_));
  moment1_ = engine::AlignedFloats(own);
  moment2_ = engine::AlignedFloats(own);
}

std::size_t Parameters::Index(const std::string& name) const {
  const auto it = index_.find(name);
  if (it == index_.end()) throw std::logic_error("parameters: no tensor " + name);
  return it->second;
}

void Parameters::ZeroGradients() { std::fill_n(gradients_.data(), size_, 0.0f); }

TrainedBuffers Parameters::buffers() {
  return {&tensors_, values(), gradients(), moment1_.data(), moment2_.data(), size_, shard_};
}

bool Parameters::IsMtp(const std::string& name) const {
  for (int j = 0; j < config_.mtp_layers; ++j) {
    if (name.rfind("model.layers." + std::to_string(config_.num_layers + j) + ".", 0) == 0)
      return true;
  }
  return false;
}

std::vector<AdamwSegment> Parameters::Segments(bool train_mtp) const {
  std::vector<AdamwSegment> segments;
  for (const Entry& entry : entries_) {
    const Kind kind = entry.spec.kind;
    AdamwSegment segment;
    segment.begin = entry.offset;
    segment.end = entry.offset + entry.spec.count();
    segment.decay = kind == Kind::kLinear || kind == Kind::kMtpLinear || kind == Kind::kRouter ||
                    kind == Kind::kEmbedding;
    segment.trained = kind != Kind::kRouterBias && (train_mtp || !IsMtp(entry.spec.name));
    segments.push_back(segment);
  }
  return segments;
}

}  // namespace temper::learner
