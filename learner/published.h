#pragma once
// The weights as actors run them: each tensor rounded or quantised once from its master.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/checkpoint.h"
#include "engine/weights.h"
#include "learner/parameters.h"

namespace temper::learner {

/// Bytes and values of every tensor. The forward reads these bytes (packed), the actors get them,
/// checkpoints hold them; the backward multiplies by their values. Masters move under them:
/// gradients by a rounded weight are gradients by its master (straight-through). In fp32 both are
/// the masters themselves and nothing is copied.
class Published {
 public:
  struct Tensor {
    std::string name;
    engine::Dtype dtype;
    std::vector<std::int64_t> shape;
    std::uint64_t begin, end;  // bytes; tensors follow each other without gaps
  };

  /// `weights` says which matrices its mode keeps in FP8. Both outlive this object.
  Published(Parameters& parameters, engine::Weights& weights);

  /// RequiredTensors order; an F8_E4M3 matrix is followed by NAME_scale_inv, F32 multipliers.
  const std::vector<Tensor>& tensors() const { return tensors_; }
  std::uint64_t size() const { return tensors_.back().end; }
  std::span<const std::byte> Bytes(const Tensor& tensor) const {
    return {bytes() + tensor.begin, tensor.end - tensor.begin};
  }
  /// What the bytes mean, in the layout of the masters.
  float* values() { return values_.size() == 0 ? parameters_.values() : values_.data(); }
  const float* values() const { return const_cast<Published*>(this)->values(); }

  /// Entry i of the parameters from its master, packed into the weights. Different entries may run
  /// at the same time.
  void Round(std::size_t entry);
  /// The same from a checkpoint that has the bytes already: codes stay as they are where the mode
  /// takes them, all else is rounded.
  void Take(std::size_t entry, const engine::TensorData& data);

 private:
  struct Slot {
    std::size_t tensor;  // index of the entry's tensor; its scales are the next one
    bool coded;
  };
  const std::byte* bytes() const;
  std::span<float> Values(std::size_t entry);
  void PackCodes(std::size_t entry);

  Parameters& parameters_;
  engine::Weights& weights_;
  std::vector<Tensor> tensors_;
  std::vector<Slot> slots_;       // an entry
  std::vector<std::byte> bytes_;  // empty in fp32
  engine::AlignedFloats values_;  // empty in fp32
};

}  // namespace temper::learner
