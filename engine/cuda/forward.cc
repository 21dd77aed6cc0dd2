#include "engine/cuda/forward.h"

#include <algorithm>
#include <utility>

#include "configs/error.h"
#include "kernels/cache_row.h"
#include "kernels/ops.h"

namespace temper::engine::cuda {

namespace kc = kernels::cuda;
using kernels::WeightType;

namespace {

// The low-rank norms use their class default, not rms_norm_eps (engine-facts D12).
constexpr float kLowRankEps = 1e-6f;
constexpr int kSplitKeys = 256;
constexpr std::int64_t kSplitBytes = std::int64_t{256} << 20;

}  // namespace

bool AttendsOnTensorCores(const ModelConfig& c, const Numerics& n, const Device& device) {
  if (!n.tensor || c.kv_lora_rank != 512 || c.qk_rope_dim != 64 ||
      n.cache == kernels::CacheType::kF32)
    return false;
  const std::size_t shared = c.heads <= 16 ? 100 << 10 : 166 << 10;
  if (device.shared() >= shared) return true;
  throw MachineError(device.name() + ": cuda-1's attention needs " + std::to_string(shared >> 10) +
                     " KiB of shared memory a block, here are " +
                     std::to_string(device.shared() >> 10) + "; choose arithmetic canon-1");
}

DeviceForward::DeviceForward(const Weights& host, const DeviceWeights& weights,
                             const Device& device, ExpertDevices* others)
    : host_(host),
      c_(host.config()),
      numerics_(host.numerics()),
      weights_(weights),
      device_(device),
      others_(others),
      tensor_attention_(AttendsOnTensorCores(c_, numerics_, device)),
      token_bytes_(c_.num_layers * std::int64_t(kernels::CacheRowBytes(
                                       numerics_.cache, c_.kv_lora_rank, c_.qk_rope_dim))) {
  const std::int64_t bytes = std::int64_t(c_.max_positions) * c_.qk_rope_dim * 4;
  rope_ = device_.Allocate(std::size_t(bytes), "the rotary table's positions");
}

void DeviceForward::ReservePositions(int positions) {
  if (positions <= positions_) return;
  positions_ = std::min(c_.max_positions, std::max(256, 2 * positions));
  std::vector<float> table(std::size_t(positions_) * std::size_t(c_.qk_rope_dim));
  kernels::RopeTable(c_.rope_frequencies().data(), c_.qk_rope_dim, positions_, c_.rope_amplitude(),
                     table.data());
  device_.Copy(rope_.get(), table.data(), table.size() * 4, cudaMemcpyHostToDevice);
  device_.Wait();  // once for every doubling of the longest sequence
}

void DeviceForward::Reserve(int rows, int heads) {
  if (rows <= rows_ && heads <= heads_) return;
  device_.Wait();  // nothing uses what is given back
  rows = std::max(rows, std::exchange(rows_, 0));
  heads = std::max(heads, std::exchange(heads_, 0));
  arena_.Clear();
  Lay(rows, heads);
  arena_.Commit(device_, "the results of a step of " + std::to_string(rows) + " rows");
  Lay(rows, heads);
  if (others_ != nullptr) others_->Reserve(rows);
  rows_ = rows;
  heads_ = heads;
}

void DeviceForward::Lay(int rows, int heads) {
  const std::int64_t m = rows, h = c_.hidden_size, n = c_.heads, k = c_.top_k, e = c_.experts;
  const std::int64_t pairs = std::max<std::int64_t>(m * k, m);
  const std::int64_t shared = std::int64_t{c_.moe_intermediate_size} * c_.shared_experts;
  const std::int64_t width = std::max(
      {m * c_.intermediate_size, pairs * c_.moe_intermediate_size, m * shared, std::int64_t{1}});
  const auto floats = [&](float** to, std::int64_t count) { *to = arena_.Take<float>(count); };
  floats(&s_.x, m * h);
  floats(&s_.normed, m * h);
  floats(&s_.q, m * n * c_.qk_dim());
  floats(&s_.low, m * std::max(c_.q_lora_rank, 1));
  floats(&s_.kv, m * c_.latent_dim());
  floats(&s_.absorbed, m * n * c_.latent_dim());
  floats(&s_.latent, m * n * c_.kv_lora_rank);
  floats(&s_.values, m * n * c_.v_dim);
  floats(&s_.block, m * h);
  floats(&s_.gate_up, 2 * width);
  floats(&s_.gated, width);
  floats(&s_.router, m * std::max<std::int64_t>(e, 1));
  floats(&s_.weight, pairs);
  floats(&s_.gathered, pairs * h);
  floats(&s_.expert_out, pairs * h);
  floats(&s_.shared, m * h);
  floats(&s_.picked, heads * h);
  floats(&s_.logits, std::int64_t{heads} * c_.vocab_size);
  // The widest inputs of a linear layer, two BF16 numbers each at most.
  const auto wide = [](std::int64_t r, std::int64_t in) { return r * kc::TensorWidth(int(in)); };
  const std::int64_t numbers =
      std::max({wide(m, h), wide(m, n * c_.v_dim), wide(m, std::max(c_.q_lora_rank, 1)),
                wide(pairs, h), wide(m, c_.intermediate_size),
                wide(pairs, c_.moe_intermediate_size), wide(m, std::max<std::int64_t>(shared, 1)),
                wide(m * n, c_.qk_nope_dim), wide(m * n, c_.kv_lora_rank), wide(heads, h)});
  s_.inputs = arena_.Take(std::size_t(4 * numbers));
  floats(&s_.scales, numbers / kernels::kPanel);
  expert_step_ = m * std::max<std::int64_t>(k, 1);
  s_.experts = arena_.Take<std::int32_t>(std::max(c_.moe_layers(), 1) * expert_step_);
  s_.offset = arena_.Take<std::int32_t>(e + 1);
  s_.slot = arena_.Take<std::int32_t>(pairs);
  s_.source = arena_.Take<std::int32_t>(pairs);
  split_room_ = tensor_attention_ ? kSplitBytes / 4 : 1;
#ifdef TEMPER_SIMT
  split_room_ = tensor_attention_ ? kc::AttentionScratch(rows, c_.heads, 2) : 1;
#endif
  floats(&s_.splits, split_room_);
}

int DeviceForward::SplitsFor(int rows, int keys) const {
  if (!tensor_attention_) return 0;
  int splits = 1;  // a power of two: few graphs
  while (splits * kSplitKeys < keys) splits *= 2;
  // Enough blocks without: a block takes its row's splits in turn.
  const int blocks = rows * ((c_.heads + 63) / 64);
  const bool filled = blocks >= 2 * device_.multiprocessors();
  return filled || kc::AttentionScratch(rows, c_.heads, splits) > split_room_ ? 0 : splits;
}

LinearInput DeviceForward::Prepare(const DeviceLinear& w, const float* x, std::int64_t ldx, int m) {
  return PrepareInput(numerics_, w, x, ldx, m, {s_.inputs, s_.scales}, device_.stream());
}

void DeviceForward::Run(const DeviceLinear& w, const LinearInput& in, int m, float* y,
                        std::int64_t ldy) {
  RunLinear(w, in, m, y, ldy, device_.stream());
}

void DeviceForward::Linear(const DeviceLinear& w, const float* x, std::int64_t ldx, int m, float* y,
                           std::int64_t ldy) {
  Run(w, Prepare(w, x, ldx, m), m, y, ldy);
}

void DeviceForward::Heads(const DeviceLinear& w, const float* x, std::int64_t x_step, int m,
                          float* y, std::int64_t y_step, std::int64_t ldy) {
  RunHeads(numerics_, w, x, x_step, c_.heads, m, y, y_step, ldy, {s_.inputs, s_.scales},
           device_.stream());
}

void DeviceForward::Norm(const float* x, std::int64_t ldx, const float* weight, float eps, int m,
                         int d, float* y, std::int64_t ldy) {
  kc::RmsNormArgs a{};
  a.x = x;
  a.ldx = ldx;
  a.weight = weight;
  a.eps = eps;
  a.m = m;
  a.d = d;
  a.y = y;
  a.ldy = ldy;
  kc::RmsNorm(a, device_.stream());
}

void DeviceForward::Bias(const float* bias, int n, int m, float* y) {
  if (bias != nullptr) kc::AddBias(bias, m, n, y, device_.stream());
}

void DeviceForward::AddBlock(int m) {
  kc::AddBlock(s_.block, std::int64_t{m} * c_.hidden_size, numerics_.rounds(), s_.x,
               device_.stream());
}

void DeviceForward::Hidden(const DeviceRows& rows, int m, int splits) {
  const int h = c_.hidden_size;
  if (others_ != nullptr) others_->Fork();
  kc::Embed(weights_.embedding(), numerics_.rounds() ? WeightType::kBf16 : WeightType::kF32,
            rows.ids, m, h, s_.x, device_.stream());
  for (int i = 0; i < c_.num_layers; ++i) {
    const DeviceLayer& w = weights_.layer(i);
    Attention(w, i, rows, m, splits);
    if (w.router.w.n > 0) {
      Moe(i, m);
      continue;
    }
    Norm(s_.x, h, w.post_norm, float(c_.rms_norm_eps), m, h, s_.normed, h);
    Mlp(w.mlp, s_.normed, nullptr, m, s_.block);
    AddBlock(m);
  }
  Norm(s_.x, h, weights_.norm(), float(c_.rms_norm_eps), m, h, s_.normed, h);
  if (others_ != nullptr) others_->Join();
}

void DeviceForward::Logits(const std::int32_t* picked, int count) {
  const int h = c_.hidden_size;
  kc::GatherRows(s_.normed, picked, count, std::int64_t{h} * 4, s_.picked, device_.stream());
  // The head's inputs are never quantised: it isn't FP8 in any mode.
  Linear(weights_.head(), s_.picked, h, count, s_.logits, weights_.head().w.n);
}

void DeviceForward::Queries(const DeviceLayer& w, const DeviceRows& rows, int m) {
  const int h = c_.hidden_size, heads = c_.heads, qk = c_.qk_dim(), rank = c_.q_lora_rank;
  Norm(s_.x, h, w.input_norm, float(c_.rms_norm_eps), m, h, s_.normed, h);
  const LinearInput input = Prepare(w.kv_a, s_.normed, h, m);
  Run(w.kv_a, input, m, s_.kv, c_.latent_dim());
  if (rank == 0) {
    Run(w.q, input, m, s_.q, heads * qk);
  } else {
    Run(w.q_a, input, m, s_.low, rank);
    Bias(w.q_a_bias, rank, m, s_.low);
    Norm(s_.low, rank, w.q_a_norm, kLowRankEps, m, rank, s_.low, rank);
    Linear(w.q_b, s_.low, rank, m, s_.q, heads * qk);
  }
  Bias(w.kv_a_bias, c_.latent_dim(), m, s_.kv);
  const auto* table = reinterpret_cast<const float*>(rope_.get());
  kc::Rope(s_.q + c_.qk_nope_dim, heads * qk, heads, qk, c_.qk_rope_dim, rows.positions, m, table,
           device_.stream());
}

void DeviceForward::Attention(const DeviceLayer& w, int layer, const DeviceRows& rows, int m,
                              int splits) {
  const cudaStream_t stream = device_.stream();
  const int heads = c_.heads, qk = c_.qk_dim(), nope = c_.qk_nope_dim, rope = c_.qk_rope_dim;
  const int latent = c_.kv_lora_rank, row = c_.latent_dim();
  Queries(w, rows, m);
  Norm(s_.kv, row, w.kv_a_norm, kLowRankEps, m, latent, s_.kv, row);
  kc::Rope(s_.kv + latent, row, 1, 0, rope, rows.positions, m,
           reinterpret_cast<const float*>(rope_.get()), stream);
  const kc::CacheView cache{reinterpret_cast<unsigned char*>(rows.cache),
                            token_bytes_,
                            token_bytes_ / c_.num_layers * layer,
                            1,
                            numerics_.cache,
                            latent,
                            rope};
  kc::StoreCache(cache, s_.kv, row, m, rows.place, stream);
  Heads(w.w_uk, s_.q, qk, m, s_.absorbed, row, std::int64_t{heads} * row);
  kc::CopyColumns(s_.q + nope, qk, m * heads, rope, s_.absorbed + latent, row, stream);
  kc::AttentionArgs a{cache,      s_.absorbed, rows.pages, rows.ld_pages,
                      rows.count, m,           heads,      float(c_.attention_scale()),
                      s_.latent,  rows.table};
  if (tensor_attention_) {
    kc::MlaAttentionTensor(a, splits, s_.splits, stream);
  } else {
    kc::MlaAttention(a, stream);
  }
  Heads(w.w_uv, s_.latent, latent, m, s_.values, c_.v_dim, std::int64_t{heads} * c_.v_dim);
  Linear(w.o, s_.values, std::int64_t{heads} * c_.v_dim, m, s_.block, c_.hidden_size);
  Bias(w.o_bias, c_.hidden_size, m, s_.block);
  AddBlock(m);
}

void DeviceForward::Mlp(const DeviceMlp& w, const float* in, const std::int32_t* offset, int m,
                        float* out) {
  RunMlp(numerics_, w, in, offset, m, {s_.gate_up, s_.gated, {s_.inputs, s_.scales}}, out,
         device_.stream());
}

void DeviceForward::Moe(int layer, int m) {
  const DeviceLayer& w = weights_.layer(layer);
  const cudaStream_t stream = device_.stream();
  const int h = c_.hidden_size, k = c_.top_k;
  std::int32_t* const ids = s_.experts + c_.MoeLayersBefore(layer) * expert_step_;
  Norm(s_.x, h, w.post_norm, float(c_.rms_norm_eps), m, h, s_.normed, h);
  // The router keeps FP32's order in every arithmetic: its choice is worth a slow layer.
  kc::Linear({w.router.w, s_.normed, h, nullptr, nullptr, m, s_.router, c_.experts, {}}, stream);
  kc::Route(s_.router, c_.experts, w.router_bias, c_.router_shape(), m, nullptr, ids, s_.weight,
            stream);
  kc::SortByExpert(ids, m, k, c_.experts, s_.offset, s_.slot, s_.source, stream);
  if (others_ != nullptr) {
    others_->Begin(layer, s_.normed, s_.source, s_.offset, m);
    const std::size_t bytes = std::size_t(m) * std::size_t(k) * std::size_t(h) * 4;
    device_.Check(cudaMemsetAsync(s_.expert_out, 0, bytes, stream), "clearing experts' rows");
  }
  kc::GatherRows(s_.normed, s_.source, m * k, std::int64_t{h} * 4, s_.gathered, stream);
  Mlp(w.experts, s_.gathered, s_.offset, m * k, s_.expert_out);
  const bool shared = w.shared.down.w.n > 0;
  if (shared) Mlp(w.shared, s_.normed, nullptr, m, s_.shared);
  if (others_ != nullptr) others_->End(s_.expert_out, m);
  kc::CombineExperts(s_.expert_out, h, s_.slot, s_.weight, k, shared ? s_.shared : nullptr, h,
                     nullptr, h, m, h, s_.block, h, stream);
  AddBlock(m);
}

}  // namespace temper::engine::cuda
