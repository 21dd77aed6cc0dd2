#pragma once
// FP32 master weights in one flat buffer, with gradients and moments beside them in the same
// layout.
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/weights.h"
#include "learner/core/adamw.h"
#include "learner/core/rank_place.h"

namespace temper::learner {

/// What AdamW moves: tensors in flat buffers of one layout.
struct TrainedBuffers {
  struct Tensor {
    std::string name;
    std::vector<std::int64_t> shape;
    std::int64_t offset;  // floats
    std::int64_t count() const;
  };
  const std::vector<Tensor>* tensors;
  float *values, *gradients;
  float *moment1, *moment2;  // of the shard alone, from its begin on
  std::int64_t size;
  Shard shard;
};

class Parameters {
 public:
  struct Entry {
    engine::TensorSpec spec;
    std::int64_t offset =
        0;  // floats; entries follow each other without gaps, in RequiredTensors order
  };

  /// Zeros. Without gradients and moments: a reference policy; without moments: one whose adapters
  /// are trained. Each of several ranks has the moments of its shard.
  explicit Parameters(const engine::ModelConfig& config, bool gradients = true, bool moments = true,
                      const Shard& shard = {});

  const engine::ModelConfig& config() const { return config_; }
  const std::vector<Entry>& entries() const { return entries_; }
  /// Throws std::logic_error for an unknown name.
  std::size_t Index(const std::string& name) const;
  const Entry& Find(const std::string& name) const { return entries_[Index(name)]; }
  bool Has(const std::string& name) const { return index_.count(name) != 0; }

  std::int64_t size() const { return size_; }
  float* values() { return values_.data(); }
  const float* values() const { return values_.data(); }
  float* gradients() { return gradients_.data(); }
  float* moment1() { return moment1_.data(); }
  float* moment2() { return moment2_.data(); }
  std::span<const float> Value(const Entry& entry) const {
    return {values_.data() + entry.offset, std::size_t(entry.spec.count())};
  }
  std::span<float> MutableValue(const Entry& entry) {
    return {values_.data() + entry.offset, std::size_t(entry.spec.count())};
  }
  void ZeroGradients();
  /// All of them, by the names of the checkpoint.
  TrainedBuffers buffers();

  /// How AdamW treats each entry; MTP layers are trained only where `train_mtp`.
  std::vector<AdamwSegment> Segments(bool train_mtp) const;
  /// True for tensors of MTP layers.
  bool IsMtp(const std::string& name) const;

 private:
  engine::ModelConfig config_;
  std::vector<Entry> entries_;
  std::vector<TrainedBuffers::Tensor> tensors_;  // the same
  std::map<std::string, std::size_t> index_;
  std::int64_t size_ = 0;
  Shard shard_;
  engine::AlignedFloats values_, gradients_, moment1_, moment2_;
};

}  // namespace temper::learner
