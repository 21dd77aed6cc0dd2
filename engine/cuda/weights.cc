#include "engine/cuda/weights.h"

#include <algorithm>

namespace temper::engine::cuda {

namespace {

constexpr std::size_t kAlign = 64;  // of each matrix in a row of equal ones

std::size_t RoundUp(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

}  // namespace

DeviceWeights::DeviceWeights(const Weights& weights, const Device& device, WeightsPart part)
    : weights_(weights),
      device_(device),
      part_(part),
      layers_(std::size_t(weights.config().num_layers) +
              std::size_t(part.mtp ? weights.config().mtp_layers : 0)) {
  Walk();
  arena_.Commit(device_, part.parts == 1 ? "the weights"
                                         : "the weights' part " + std::to_string(part.part + 1) +
                                               " of " + std::to_string(part.parts));
  Walk();
  device_.Wait();  // the host may change its own now
}

bool DeviceWeights::Update() {
  arena_.Rewind();
  retyped_ = false;
  Walk();
  device_.Wait();
  return retyped_;
}

void DeviceWeights::Walk() {
  if (part_.part > 0) {
    for (std::size_t i = 0; i < layers_.size(); ++i)
      WalkExperts(weights_.layer(int(i)), &layers_[i]);
    return;
  }
  const ModelConfig& c = weights_.config();
  const std::size_t rows = std::size_t(c.vocab_size) * std::size_t(c.hidden_size);
  if (weights_.numerics().rounds()) {
    embedding_ = arena_.Take(rows * 2);
    if (!arena_.measuring())
      device_.Copy(embedding_, weights_.embedding_rows_bf16(), rows * 2, cudaMemcpyHostToDevice);
  } else {
    embedding_ = arena_.Take(rows * 4);
    if (!arena_.measuring())
      device_.Copy(embedding_, weights_.embedding().data(), rows * 4, cudaMemcpyHostToDevice);
  }
  Put(weights_.norm(), &norm_);
  Put(weights_.head(), &head_);
  for (std::size_t i = 0; i < layers_.size(); ++i) WalkLayer(weights_.layer(int(i)), &layers_[i]);
}

void DeviceWeights::WalkExperts(const LayerWeights& from, DeviceLayer* to) {
  if (!from.moe) return;
  const int experts = int(from.experts.size());
  const int first = FirstExpert(experts, part_.part, part_.parts);
  const int end = FirstExpert(experts, part_.part + 1, part_.parts);
  PutMlps(std::span(from.experts).subspan(std::size_t(first), std::size_t(end - first)),
          &to->experts);
}

void DeviceWeights::WalkLayer(const LayerWeights& from, DeviceLayer* to) {
  Put(from.input_norm, &to->input_norm);
  Put(from.post_norm, &to->post_norm);
  Put(from.q_a_norm, &to->q_a_norm);
  Put(from.kv_a_norm, &to->kv_a_norm);
  Put(from.q_a_bias, &to->q_a_bias);
  Put(from.kv_a_bias, &to->kv_a_bias);
  Put(from.o_bias, &to->o_bias);
  Put(from.q, &to->q);
  Put(from.q_a, &to->q_a);
  Put(from.q_b, &to->q_b);
  Put(from.kv_a, &to->kv_a);
  PutHeads(from.w_uk, &to->w_uk);
  PutHeads(from.w_uv, &to->w_uv);
  Put(from.o, &to->o);
  Put(from.eh, &to->eh);
  if (!from.moe) return PutMlps({&from.mlp, 1}, &to->mlp);
  Put(from.router, &to->router);
  Put(from.router_bias, &to->router_bias);
  WalkExperts(from, to);
  if (from.shared.down.n > 0) PutMlps({&from.shared, 1}, &to->shared);
}

void DeviceWeights::Put(std::span<const float> values, float** to) {
  if (values.empty()) return;
  *to = reinterpret_cast<float*>(arena_.Take(values.size_bytes()));
  if (!arena_.measuring())
    device_.Copy(*to, values.data(), values.size_bytes(), cudaMemcpyHostToDevice);
}

void DeviceWeights::Put(const PackedLinear& part, DeviceLinear* to) {
  const PackedLinear* const one = &part;
  if (part.n > 0) Put({&one, 1}, to);
}

void DeviceWeights::Put(std::span<const PackedLinear* const> parts, DeviceLinear* to) {
  const PackedLinear& first = *parts[0];
  const std::size_t count = parts.size(), step = RoundUp(first.storage.size());
  const std::size_t scales = first.scale.size();
  // Heads of FP8 models may become wider with an update (kv_b_proj, engine/weights_builder.cc).
  const bool may_widen = weights_.numerics().fp8() && first.type != kernels::WeightType::kFp8;
  const std::size_t room =
      RoundUp(kernels::PackedBytes(kernels::WeightType::kF32, first.n, first.k)) * count;
  std::byte* const data = arena_.Take(step * count, may_widen ? room : 0);
  float* const scale = scales > 0 ? arena_.Take<float>(std::int64_t(scales * count)) : nullptr;
  retyped_ = retyped_ || to->w.type != first.type;
  to->w = {data, first.n, first.k, first.type, scale};
  to->groups = {int(count), std::int64_t(step), std::int64_t(scales), 0, 0, nullptr};
  for (std::size_t i = 0; i < count && !arena_.measuring(); ++i) {
    device_.Copy(data + i * step, parts[i]->storage.data(), parts[i]->storage.size(),
                 cudaMemcpyHostToDevice);
    device_.Copy(scale + i * scales, parts[i]->scale.data(), scales * sizeof(float),
                 cudaMemcpyHostToDevice);
  }
}

void DeviceWeights::PutHeads(const std::vector<PackedLinear>& heads, DeviceLinear* to) {
  std::vector<const PackedLinear*> parts;
  for (const PackedLinear& head : heads) parts.push_back(&head);
  Put(parts, to);
}

void DeviceWeights::PutMlps(std::span<const MlpWeights> mlps, DeviceMlp* to) {
  std::vector<const PackedLinear*> gate_up, up, down;
  for (const MlpWeights& mlp : mlps) {
    gate_up.push_back(&mlp.gate_up);
    up.push_back(&mlp.up);
    down.push_back(&mlp.down);
  }
  Put(gate_up, &to->gate_up);
  if (mlps[0].up.n > 0) Put(up, &to->up);
  Put(down, &to->down);
}

}  // namespace temper::engine::cuda
