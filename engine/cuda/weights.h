#pragma once
// A model's packed weights on a device, each at an address that updates don't move.
#include <span>
#include <vector>

#include "engine/cuda/memory.h"
#include "engine/weights.h"
#include "kernels/cuda/cuda_kernels.h"

namespace temper::engine::cuda {

/// One matrix, or equal ones side by side: heads, experts.
struct DeviceLinear {
  kernels::LinearWeight w;
  kernels::cuda::Groups groups;  // its steps; w.n 0: there is none
};

struct DeviceMlp {
  DeviceLinear gate_up, up, down;  // as MlpWeights
};

struct DeviceLayer {
  float *input_norm = nullptr, *post_norm = nullptr, *q_a_norm = nullptr, *kv_a_norm = nullptr;
  float *q_a_bias = nullptr, *kv_a_bias = nullptr, *o_bias = nullptr, *router_bias = nullptr;
  DeviceLinear q, q_a, q_b, kv_a, w_uk, w_uv, o, router;
  DeviceLinear eh;  // of an MTP layer
  DeviceMlp mlp, experts, shared;
};

/// What of a model a device holds.
struct WeightsPart {
  bool mtp = false;         // the MTP layers too, behind the main ones
  int part = 0, parts = 1;  // of the experts; parts past the first hold nothing else
};
/// Part i has the experts [FirstExpert(i), FirstExpert(i + 1)).
inline int FirstExpert(int experts, int part, int parts) { return experts * part / parts; }

class DeviceWeights {
 public:
  /// Allocates and copies. Both must outlive it.
  DeviceWeights(const Weights& weights, const Device& device, WeightsPart part = {});
  /// Copies everything again, to the same addresses. True where a matrix has become another type.
  bool Update();

  const void* embedding() const { return embedding_; }
  const float* norm() const { return norm_; }
  const DeviceLinear& head() const { return head_; }
  const DeviceLayer& layer(int i) const { return layers_[std::size_t(i)]; }

 private:
  void Walk();
  void WalkExperts(const LayerWeights& from, DeviceLayer* to);
  void WalkLayer(const LayerWeights& from, DeviceLayer* to);
  void Put(std::span<const float> values, float** to);
  void Put(std::span<const PackedLinear* const> parts, DeviceLinear* to);
  void Put(const PackedLinear& part, DeviceLinear* to);
  void PutHeads(const std::vector<PackedLinear>& heads, DeviceLinear* to);
  void PutMlps(std::span<const MlpWeights> mlps, DeviceMlp* to);

  const Weights& weights_;
  const Device& device_;
  const WeightsPart part_;
  Arena arena_;
  void* embedding_ = nullptr;
  float* norm_ = nullptr;
  DeviceLinear head_;
  std::vector<DeviceLayer> layers_;
  bool retyped_ = false;
};

}  // namespace temper::engine::cuda
