// The policy's forward by kernels/cuda, on LibTorch's memory and streams and the engine's weights.
#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <stdexcept>

#include "engine/cuda/forward.h"
#include "engine/cuda/linear.h"
#include "engine/cuda/memory.h"
#include "engine/cuda/weights.h"
#include "kernels/cache_row.h"
#include "learner/cuda/place.h"
#include "learner/device.h"

namespace temper::learner {

namespace {

namespace kc = kernels::cuda;
namespace ec = engine::cuda;

constexpr float kLatentEps = 1e-6f;  // the low-rank norms' class default, not rms_norm_eps

class KernelDevice : public Device {
 public:
  KernelDevice(int number, const engine::Weights& weights)
      : c_(weights.config()),
        numerics_(weights.numerics()),
        device_(number),
        tensor_attention_(ec::AttendsOnTensorCores(c_, numerics_, device_)),
        weights_(weights, device_, {.mtp = true}),
        place_(PlaceOf(number)) {
    linear_[&weights.head()] = &weights_.head();
    for (int i = 0; i < c_.num_layers + c_.mtp_layers; ++i) {
      const engine::LayerWeights& from = weights.layer(i);
      const ec::DeviceLayer& to = weights_.layer(i);
      layer_[&from] = &to;
      linear_[&from.q] = &to.q;
      linear_[&from.q_a] = &to.q_a;
      linear_[&from.q_b] = &to.q_b;
      linear_[&from.kv_a] = &to.kv_a;
      linear_[&from.o] = &to.o;
      linear_[&from.eh] = &to.eh;
      mlp_[&from.mlp] = &to.mlp;
      mlp_[&from.shared] = &to.shared;
    }
  }

  torch::Device place() const override { return place_; }

  void Update() override {
    device_.Use();
    weights_.Update();
  }

  torch::Tensor RmsNorm(const torch::Tensor& x, const torch::Tensor& weight,
                        float eps) const override {
    torch::Tensor y = torch::empty_like(x);
    Norm(x.data_ptr<float>(), x.size(1), weight, eps, int(x.size(0)), int(x.size(1)),
         y.data_ptr<float>());
    return y;
  }

  torch::Tensor Linear(const engine::PackedLinear& w, const torch::Tensor& x) const override {
    const ec::DeviceLinear& own = *linear_.at(&w);
    torch::Tensor y = Floats({x.size(0), own.w.n});
    Multiply(numerics_, own, x, y.data_ptr<float>(), own.w.n);
    return y;
  }

  torch::Tensor AddBlock(const torch::Tensor& out, const torch::Tensor& residual) const override {
    torch::Tensor y = residual.clone();
    kc::AddBlock(out.data_ptr<float>(), out.numel(), numerics_.rounds(), y.data_ptr<float>(),
                 stream());
    return y;
  }

  torch::Tensor Mlp(const engine::MlpWeights& w, const torch::Tensor& x) const override {
    const ec::DeviceMlp& own = *mlp_.at(&w);
    torch::Tensor out = Floats({x.size(0), own.down.w.n});
    RunMlp(own, x, nullptr, &out);
    return out;
  }

  torch::Tensor Attention(const OpContext& context, const engine::LayerWeights& w,
                          const torch::Tensor& q, const torch::Tensor& kv,
                          const torch::Tensor& kv_a_norm, torch::Tensor* rows) const override;

  torch::Tensor RouterLogits(const engine::LayerWeights& w, const torch::Tensor& x) const override {
    torch::Tensor y = Floats({x.size(0), c_.experts});
    engine::Numerics canonical = numerics_;  // as engine::cuda::DeviceForward
    canonical.tensor = false;
    Multiply(canonical, layer_.at(&w)->router, x, y.data_ptr<float>(), c_.experts);
    return y;
  }

  void Route(const engine::LayerWeights& w, const torch::Tensor& logits,
             const std::vector<std::int32_t>& forced, std::vector<std::int32_t>* ids,
             std::vector<float>* weights) const override {
    const std::int64_t m = logits.size(0), k = c_.top_k;
    const torch::Tensor chosen = Ints({m, k}), gates = Floats({m, k});
    const torch::Tensor given = forced.empty() ? torch::Tensor() : Upload(forced);
    kc::Route(logits.data_ptr<float>(), c_.experts, layer_.at(&w)->router_bias, c_.router_shape(),
              int(m), given.defined() ? given.data_ptr<std::int32_t>() : nullptr,
              chosen.data_ptr<std::int32_t>(), gates.data_ptr<float>(), stream());
    const torch::Tensor host_ids = chosen.cpu(), host_gates = gates.cpu();
    std::copy_n(host_ids.data_ptr<std::int32_t>(), m * k, ids->begin());
    std::copy_n(host_gates.data_ptr<float>(), m * k, weights->begin());
  }

  torch::Tensor Experts(const engine::LayerWeights& w, const torch::Tensor& x,
                        const std::vector<std::int64_t>& begin) const override {
    const std::int64_t used = begin.back();
    torch::Tensor out = Floats({x.size(0), c_.hidden_size});
    if (used < x.size(0)) out.narrow(0, used, x.size(0) - used).zero_();
    const torch::Tensor offset = Upload(std::vector<std::int32_t>(begin.begin(), begin.end()));
    if (used > 0) {
      RunMlp(layer_.at(&w)->experts, x.narrow(0, 0, used), offset.data_ptr<std::int32_t>(), &out);
    }
    return out;
  }

  torch::Tensor Combine(const torch::Tensor& out, const std::vector<std::int32_t>& slot,
                        const std::vector<float>& weights,
                        const torch::Tensor& shared) const override {
    const int h = c_.hidden_size, k = c_.top_k, m = int(std::int64_t(slot.size()) / k);
    torch::Tensor y = Floats({m, h});
    const torch::Tensor slots = Upload(slot), gates = Upload(weights);
    kc::CombineExperts(out.data_ptr<float>(), h, slots.data_ptr<std::int32_t>(),
                       gates.data_ptr<float>(), k,
                       shared.defined() ? shared.data_ptr<float>() : nullptr, h, nullptr, h, m, h,
                       y.data_ptr<float>(), h, stream());
    return y;
  }

  LogProbs LogSoftmax(const torch::Tensor& logits, const std::vector<std::int32_t>& targets,
                      float temperature) const override {
    const int m = int(logits.size(0)), v = int(logits.size(1));
    LogProbs out{Floats({m}), Floats({m}), Floats({m})};
    const torch::Tensor target = Upload(targets), heat = Floats({m}).fill_(temperature),
                        scratch = Floats({kc::LogSoftmaxScratch(m, v)});
    kc::LogSoftmaxArgs a{};
    a.logits = logits.data_ptr<float>();
    a.ld = a.v = v;
    a.m = m;
    a.temperature = heat.data_ptr<float>();
    a.lse = out.lse.data_ptr<float>();
    a.target = target.data_ptr<std::int32_t>();
    a.logp = out.logp.data_ptr<float>();
    a.entropy = out.entropy.data_ptr<float>();
    a.scratch = scratch.data_ptr<float>();
    kc::LogSoftmax(a, stream());
    return out;
  }

 private:
  /// Where a pack's rows lie in the cache of one forward, as the attention kernels take it.
  struct Places {
    std::shared_ptr<const Pack> pack;
    torch::Tensor position, count, table, pages;  // int32 [T], [T], [T], [S][longest chain]
    torch::Tensor place;                          // int64 [T]
    torch::Tensor rope;                           // [longest][R]
  };
  void Lay(const OpContext& context) const;

  cudaStream_t stream() const { return StreamOf(place_); }
  torch::Tensor Floats(torch::IntArrayRef shape) const {
    return torch::empty(shape, torch::TensorOptions().device(place_));
  }
  torch::Tensor Ints(torch::IntArrayRef shape) const {
    return torch::empty(shape, torch::TensorOptions().dtype(torch::kInt32).device(place_));
  }
  template <typename T>
  torch::Tensor Upload(const std::vector<T>& values) const {
    return torch::tensor(values, torch::CppTypeToScalarType<T>::value).to(place_);
  }

  /// Holds what LinearRoom points to; LibTorch reuses it in the stream's order.
  struct Room {
    torch::Tensor inputs, scales;
    operator ec::LinearRoom() const {
      return {reinterpret_cast<std::byte*>(inputs.data_ptr<float>()), scales.data_ptr<float>()};
    }
  };
  Room RoomFor(std::int64_t rows, int k) const {
    const std::int64_t numbers = rows * kc::TensorWidth(k);
    return {Floats({numbers}), Floats({numbers / 16})};
  }

  void Norm(const float* x, std::int64_t ldx, const torch::Tensor& weight, float eps, int m, int d,
            float* y) const {
    kc::RmsNormArgs a{};
    a.x = x;
    a.ldx = ldx;
    a.weight = weight.data_ptr<float>();
    a.eps = eps;
    a.m = m;
    a.d = d;
    a.y = y;
    a.ldy = ldx;
    kc::RmsNorm(a, stream());
  }

  void Multiply(const engine::Numerics& numerics, const ec::DeviceLinear& w, const torch::Tensor& x,
                float* y, std::int64_t ldy) const {
    const int m = int(x.size(0));
    const Room room = RoomFor(m, w.w.k);
    const auto in =
        ec::PrepareInput(numerics, w, x.data_ptr<float>(), x.size(1), m, room, stream());
    ec::RunLinear(w, in, m, y, ldy, stream());
  }

  void Heads(const ec::DeviceLinear& w, const torch::Tensor& x, std::int64_t x_step, float* y,
             std::int64_t y_step) const {
    const int m = int(x.size(0)), heads = c_.heads;
    const Room room = RoomFor(std::int64_t(m) * heads, w.w.k);
    ec::RunHeads(numerics_, w, x.data_ptr<float>(), x_step, heads, m, y, y_step, heads * y_step,
                 room, stream());
  }

  /// `offset` on the device: x are the rows of many experts; null: of one MLP.
  void RunMlp(const ec::DeviceMlp& w, const torch::Tensor& x, const std::int32_t* offset,
              torch::Tensor* out) const {
    const int m = int(x.size(0)), width = w.down.w.k;
    const auto grouped = [&](ec::DeviceLinear linear) {
      linear.groups.offset = offset;
      return linear;
    };
    const torch::Tensor gate_up = Floats({m, 2 * width}), gated = Floats({m, width});
    Multiply(numerics_, grouped(w.gate_up), x, gate_up.data_ptr<float>(), 2 * width);
    if (w.up.w.n > 0)
      Multiply(numerics_, grouped(w.up), x, gate_up.data_ptr<float>() + width, 2 * width);
    kc::SwiGlu(gate_up.data_ptr<float>(), 2 * width, m, width, gated.data_ptr<float>(), width, {},
               stream());
    Multiply(numerics_, grouped(w.down), gated, out->data_ptr<float>(), w.down.w.n);
  }

  const engine::ModelConfig& c_;
  const engine::Numerics numerics_;
  ec::Device device_;
  const bool tensor_attention_;
  ec::DeviceWeights weights_;
  const torch::Device place_;
  std::map<const engine::PackedLinear*, const ec::DeviceLinear*> linear_;
  std::map<const engine::MlpWeights*, const ec::DeviceMlp*> mlp_;
  std::map<const engine::LayerWeights*, const ec::DeviceLayer*> layer_;
  mutable Places places_;  // of the last pack: the layers of a forward share one
};

void KernelDevice::Lay(const OpContext& context) const {
  if (places_.pack == context.pack) return;
  const Pack& pack = *context.pack;
  const int tokens = pack.tokens(), sequences = pack.sequences();
  int longest = 0;
  for (int s = 0; s < sequences; ++s) longest = std::max(longest, pack.before(s) + pack.length(s));
  std::vector<std::int32_t> pages(std::size_t(sequences) * std::size_t(longest), 0), count, table;
  for (int s = 0; s < sequences; ++s) {
    auto at = pages.begin() + std::ptrdiff_t(s) * longest;
    const auto add = [&](int from) {
      for (int t = pack.start[from]; t < pack.start[from + 1]; ++t) *at++ = t;
    };
    if (pack.trunk[s] >= 0) add(pack.trunk[s]);
    add(s);
    for (int t = pack.start[s]; t < pack.start[s + 1]; ++t) {
      count.push_back(pack.position[t] + 1);
      table.push_back(s);
    }
  }
  std::vector<std::int64_t> place(static_cast<std::size_t>(tokens));
  std::iota(place.begin(), place.end(), 0);
  const torch::Tensor rope =
      torch::from_blob(const_cast<float*>(context.rope_table), {longest, c_.qk_rope_dim});
  places_ = {context.pack,  Upload(pack.position), Upload(count),  Upload(table),
             Upload(pages), Upload(place),         rope.to(place_)};
  places_.pages = places_.pages.view({sequences, longest});
}

torch::Tensor KernelDevice::Attention(const OpContext& context, const engine::LayerWeights& w,
                                      const torch::Tensor& q, const torch::Tensor& kv,
                                      const torch::Tensor& kv_a_norm, torch::Tensor* rows) const {
  Lay(context);
  const ec::DeviceLayer& own = *layer_.at(&w);
  const int m = context.pack->tokens(), heads = c_.heads, qk = c_.qk_dim(), nope = c_.qk_nope_dim,
            rope = c_.qk_rope_dim, latent = c_.kv_lora_rank, row = c_.latent_dim();
  const std::int32_t* position = places_.position.data_ptr<std::int32_t>();
  const float* angles = places_.rope.data_ptr<float>();

  const torch::Tensor normed = kv.clone();
  Norm(normed.data_ptr<float>(), row, kv_a_norm, kLatentEps, m, latent, normed.data_ptr<float>());
  kc::Rope(normed.data_ptr<float>() + latent, row, 1, 0, rope, position, m, angles, stream());
  const std::int64_t bytes = std::int64_t(kernels::CacheRowBytes(numerics_.cache, latent, rope));
  const torch::Tensor cache = Floats({m * bytes / 4});
  const kc::CacheView view{reinterpret_cast<unsigned char*>(cache.data_ptr<float>()),
                           bytes,
                           0,
                           1,
                           numerics_.cache,
                           latent,
                           rope};
  kc::StoreCache(view, normed.data_ptr<float>(), row, m, places_.place.data_ptr<std::int64_t>(),
                 stream());

  const torch::Tensor rotated = q.clone();
  kc::Rope(rotated.data_ptr<float>() + nope, std::int64_t(heads) * qk, heads, qk, rope, position, m,
           angles, stream());
  const torch::Tensor absorbed = Floats({m, heads, row}), read = Floats({m, heads, latent});
  Heads(own.w_uk, rotated, qk, absorbed.data_ptr<float>(), row);
  kc::CopyColumns(rotated.data_ptr<float>() + nope, qk, m * heads, rope,
                  absorbed.data_ptr<float>() + latent, row, stream());
  const kc::AttentionArgs a{view,
                            absorbed.data_ptr<float>(),
                            places_.pages.data_ptr<std::int32_t>(),
                            places_.pages.size(1),
                            places_.count.data_ptr<std::int32_t>(),
                            m,
                            heads,
                            float(c_.attention_scale()),
                            read.data_ptr<float>(),
                            places_.table.data_ptr<std::int32_t>()};
  if (tensor_attention_) {
    kc::MlaAttentionTensor(a, /*splits=*/0, nullptr, stream());
  } else {
    kc::MlaAttention(a, stream());
  }
  *rows = normed;
  torch::Tensor out = Floats({m, std::int64_t(heads) * c_.v_dim});
  Heads(own.w_uv, read, latent, out.data_ptr<float>(), c_.v_dim);
  return out;
}

}  // namespace

std::unique_ptr<Device> MakeCudaDevice(int number, const engine::Weights& weights) {
  return std::make_unique<KernelDevice>(number, weights);
}

}  // namespace temper::learner
