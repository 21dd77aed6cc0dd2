#pragma once
// Low-rank adapters that are trained instead of the matrices they are merged into.
#include <memory>
#include <string>
#include <vector>

#include "configs/config.h"
#include "engine/adapter.h"
#include "learner/parameters.h"

namespace temper::learner {

/// Master = base + scale B A for every targeted matrix of the main layers; all else stays as
/// loaded. The forward knows nothing of it: it rounds and runs the merged masters, on actors and
/// learner alike. Source Hu et al. (arXiv 2106.09685); PEFT's names and start (A uniform in
/// +-1/sqrt(K), B zero).
class Lora {
 public:
  /// Throws UserError where target_modules name no matrix of the model.
  Lora(const configs::Lora& config, const Parameters& parameters, const Shard& shard = {});

  bool Targets(const std::string& name) const {
    return config_.Targets(name) && index_.count(name);
  }
  /// Takes the loaded masters as the base. The adapter of a folder, or a new one drawn by `seed`,
  /// where the folder is "".
  void Begin(const Parameters& parameters, const std::string& adapter_dir, std::uint64_t seed);
  /// The same base, with factors that a checkpoint's buffers brought.
  void SetBase(const Parameters& parameters);
  /// Masters of the targeted matrices.
  void Merge(Parameters& parameters, kernels::ThreadPool& pool) const;
  /// Gradients of the factors from those of the matrices: dA = scale B^T dW, dB = scale dW A^T.
  void TakeGradients(Parameters& parameters, kernels::ThreadPool& pool);
  /// Entries of the parameters that it changes, ascending.
  const std::vector<std::size_t>& entries() const { return entries_; }

  TrainedBuffers buffers() {
    return {&tensors_, values_.data(), gradients_.data(), moment1_.data(), moment2_.data(),
            size_,     shard_};
  }
  std::vector<AdamwSegment> Segments() const;
  /// In PEFT's layout.
  void Write(const std::string& dir, const std::string& base_model, const float* values) const;

 private:
  struct Matrix {
    std::size_t entry;
    std::int64_t n, k;
    std::int64_t a, b;  // floats from the buffers' begin
    std::int64_t base;  // floats from base_'s begin
  };

  engine::AdapterConfig config_;
  std::vector<Matrix> matrices_;
  std::vector<std::size_t> entries_;
  std::map<std::string, std::size_t> index_;  // of matrices_, by the weight's name
  std::vector<TrainedBuffers::Tensor> tensors_;
  std::int64_t size_ = 0;
  Shard shard_;
  engine::AlignedFloats base_, values_, gradients_, moment1_, moment2_;
};

}  // namespace temper::learner
