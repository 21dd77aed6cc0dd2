#include "engine/forward.h"

#include <algorithm>
#include <cstring>

#include "kernels/bf16.h"
#include "kernels/cache_row.h"
#include "kernels/ops.h"
#include "kernels/router.h"

namespace temper::engine {

namespace {

// The low-rank norms use their class default, not rms_norm_eps (engine-facts D12).
constexpr float kLowRankEps = 1e-6f;

enum Buffer {
  kHidden,
  kNormed,
  kQuery,
  kLowRank,
  kLatent,
  kAbsorbed,
  kLatentOut,
  kHeads,
  kBlockOut,
  kGateUp,
  kGated,
  kLogits,
  kWeight,
  kGathered,
  kExpertGateUp,
  kExpertGated,
  kExpertOut,
  kShared,
  kMtpPair,
  kSharedGateUp,
  kSharedGated,
  kQuantized,  // two buffers
  kQuantized2,
  kInputScales,  // theirs
  kInputScales2,
  kBuffers
};

// y[r, :] += bias in FP32; without a bias nothing.
void AddBias(const std::vector<float>& bias, int m, float* y) {
  const std::size_t n = bias.size();
  for (std::size_t r = 0; n > 0 && r < std::size_t(m); ++r) {
    for (std::size_t i = 0; i < n; ++i) y[r * n + i] += bias[i];
  }
}

}  // namespace

Forward::Forward(const Weights& weights, kernels::ThreadPool& pool)
    : weights_(weights), pool_(pool), scratch_(kBuffers) {}

float* Forward::Scratch(int which, std::size_t floats) {
  if (scratch_[which].size() < floats) {
    scratch_[which] = AlignedFloats();  // free before growing
    scratch_[which] = AlignedFloats(floats + floats / 2);
  }
  return scratch_[which].data();
}

const float* Forward::Table(int position) {
  if (position >= rope_positions_) {
    const ModelConfig& c = weights_.config();
    rope_positions_ = std::max(256, (position + 1) * 2);
    rope_table_.resize(std::size_t(rope_positions_) * c.qk_rope_dim);
    kernels::RopeTable(c.rope_frequencies().data(), c.qk_rope_dim, rope_positions_,
                       c.rope_amplitude(), rope_table_.data());
  }
  return rope_table_.data();
}

void Forward::Embed(const std::int32_t* ids, int m, float* out) const {
  const std::size_t h = weights_.config().hidden_size;
  for (int r = 0; r < m; ++r) {
    weights_.Embed(ids[r], out + r * h);
  }
}

void Forward::Hidden(const ForwardRows& rows, float* hidden, const Experts& experts) {
  const ModelConfig& c = weights_.config();
  float* x = Scratch(kHidden, std::size_t(rows.m) * c.hidden_size);
  Embed(rows.ids, rows.m, x);
  for (int i = 0; i < c.num_layers; ++i) Layer(i, i, rows, x, experts);
  kernels::RmsNorm(x, c.hidden_size, weights_.norm().data(), c.rms_norm_eps, rows.m, c.hidden_size,
                   hidden, c.hidden_size, pool_);
}

std::int64_t Forward::CacheBytes(int layers) const {
  const ModelConfig& c = weights_.config();
  return layers * std::int64_t(kernels::CacheRowBytes(weights_.numerics().cache, c.kv_lora_rank,
                                                      c.qk_rope_dim));
}

Forward::Input Forward::Prepare(const PackedLinear& w, const float* x, std::int64_t ldx, int m,
                                int buffer) {
  if (!weights_.numerics().quantizes_inputs() || w.type != kernels::WeightType::kFp8)
    return {x, ldx};
  const std::int64_t blocks = (w.k + kernels::kBlock - 1) / kernels::kBlock;
  float* values = Scratch(kQuantized + buffer, std::size_t(m) * w.k);
  float* scales = Scratch(kInputScales + buffer, std::size_t(m) * blocks);
  kernels::QuantizeActivations(x, ldx, m, w.k, weights_.numerics().scale, values, w.k, scales,
                               pool_);
  return {values, w.k, scales, blocks};
}

void Forward::Push(const PackedLinear& w, const Input& in, std::int64_t first, int m, float* y,
                   std::int64_t ldy) {
  if (m == 0) return;
  items_.push_back({w.view(), in.x + first * in.ldx, in.ldx, m, y, ldy,
                    in.scale ? in.scale + first * in.ld_scale : nullptr, in.ld_scale});
}

void Forward::PushGateUp(const MlpWeights& w, const Input& in, std::int64_t first, int m,
                         float* out) {
  const std::int64_t width = w.down.k;
  Push(w.gate_up, in, first, m, out, 2 * width);
  if (w.up.n > 0) Push(w.up, in, first, m, out + width, 2 * width);
}

void Forward::Run() {
  kernels::LinearMany(items_.data(), int(items_.size()), pool_);
  items_.clear();
}

void Forward::Linear(const PackedLinear& w, const float* x, std::int64_t ldx, int m, float* y,
                     std::int64_t ldy) {
  Push(w, Prepare(w, x, ldx, m), 0, m, y, ldy);
  Run();
}

void Forward::AddBlock(float* out, int m, float* x) {
  const std::int64_t count = std::int64_t(m) * weights_.config().hidden_size;
  if (weights_.numerics().rounds()) kernels::RoundBf16(out, count, pool_);
  kernels::Add(x, out, count, x, pool_);
}

void Forward::Logits(const float* hidden, int m, float* logits) {
  const kernels::LinearWeight head = weights_.head().view();
  kernels::Linear(head, hidden, head.k, m, logits, head.n, pool_);
}

void Forward::Mtp(int j, const ForwardRows& rows, const float* hidden, float* out) {
  const ModelConfig& c = weights_.config();
  const int h = c.hidden_size;
  const LayerWeights& w = weights_.layer(c.num_layers + j);
  float* pair = Scratch(kMtpPair, std::size_t(rows.m) * 2 * h);
  float* x = Scratch(kHidden, std::size_t(rows.m) * h);
  Embed(rows.ids, rows.m, x);
  kernels::RmsNorm(x, h, w.enorm.data(), c.rms_norm_eps, rows.m, h, pair, 2 * h, pool_);
  kernels::RmsNorm(hidden, h, w.hnorm.data(), c.rms_norm_eps, rows.m, h, pair + h, 2 * h, pool_);
  Linear(w.eh, pair, 2 * h, rows.m, x, h);
  Layer(c.num_layers + j, 0, rows, x, nullptr);
  kernels::RmsNorm(x, h, w.head_norm.data(), c.rms_norm_eps, rows.m, h, out, h, pool_);
}

void Forward::Layer(int index, int cache_layer, const ForwardRows& rows, float* x,
                    const Experts& experts) {
  const ModelConfig& c = weights_.config();
  const LayerWeights& w = weights_.layer(index);
  Attention(w, cache_layer, rows, x);
  if (w.moe) {
    Moe(w, rows.m, x, experts, c.MoeLayersBefore(index));
    return;
  }
  const int h = c.hidden_size;
  float* normed = Scratch(kNormed, std::size_t(rows.m) * h);
  float* out = Scratch(kBlockOut, std::size_t(rows.m) * h);
  kernels::RmsNorm(x, h, w.post_norm.data(), c.rms_norm_eps, rows.m, h, normed, h, pool_);
  Mlp(w.mlp, normed, rows.m, out);
  AddBlock(out, rows.m, x);
}

void Forward::Attention(const LayerWeights& w, int cache_layer, const ForwardRows& rows, float* x) {
  const ModelConfig& c = weights_.config();
  const int m = rows.m, h = c.hidden_size, heads = c.heads;
  const int qk = c.qk_dim(), nope = c.qk_nope_dim, rope = c.qk_rope_dim;
  const int latent = c.kv_lora_rank, row = c.latent_dim();
  const float* table = Table(*std::max_element(rows.positions, rows.positions + m));

  float* normed = Scratch(kNormed, std::size_t(m) * h);
  kernels::RmsNorm(x, h, w.input_norm.data(), c.rms_norm_eps, m, h, normed, h, pool_);
  float* q = Scratch(kQuery, std::size_t(m) * heads * qk);
  float* kv = Scratch(kLatent, std::size_t(m) * row);
  const int rank = c.q_lora_rank;
  float* low = Scratch(kLowRank, std::size_t(m) * rank);
  const Input input = Prepare(w.kv_a, normed, h, m);
  Push(w.kv_a, input, 0, m, kv, row);
  if (rank == 0) {
    Push(w.q, input, 0, m, q, heads * qk);
  } else {
    Push(w.q_a, input, 0, m, low, rank);
  }
  Run();
  AddBias(w.kv_a_bias, m, kv);
  if (rank > 0) {
    AddBias(w.q_a_bias, m, low);
    kernels::RmsNorm(low, rank, w.q_a_norm.data(), kLowRankEps, m, rank, low, rank, pool_);
    Linear(w.q_b, low, rank, m, q, heads * qk);
  }
  kernels::RmsNorm(kv, row, w.kv_a_norm.data(), kLowRankEps, m, latent, kv, row, pool_);
  kernels::Rope(kv + latent, row, 1, 0, rope, rows.positions, m, table, pool_);
  const kernels::CacheType cache = weights_.numerics().cache;
  const std::int64_t offset = CacheBytes(cache_layer);
  for (int r = 0; r < m; ++r)
    kernels::StoreCacheRow(cache, kv + std::int64_t(r) * row, latent, rope,
                           rows.latent[r] + offset);

  kernels::Rope(q + nope, heads * qk, heads, qk, rope, rows.positions, m, table, pool_);
  float* absorbed = Scratch(kAbsorbed, std::size_t(m) * heads * row);
  for (int n = 0; n < heads; ++n)
    Push(w.w_uk[n], {q + n * qk, heads * qk}, 0, m, absorbed + n * row, heads * row);
  Run();
  for (std::int64_t i = 0; i < std::int64_t(m) * heads; ++i) {
    std::memcpy(absorbed + i * row + latent, q + i * qk + nope, rope * sizeof(float));
  }
  float* latent_out = Scratch(kLatentOut, std::size_t(m) * heads * latent);
  kernels::MlaAttention(absorbed, rows.attention, m, heads, latent, rope,
                        float(c.attention_scale()), cache, offset, latent_out, pool_);
  float* values = Scratch(kHeads, std::size_t(m) * heads * c.v_dim);
  for (int n = 0; n < heads; ++n) {
    Push(w.w_uv[n], {latent_out + n * latent, heads * latent}, 0, m, values + n * c.v_dim,
         heads * c.v_dim);
  }
  Run();
  float* out = Scratch(kBlockOut, std::size_t(m) * h);
  Linear(w.o, values, heads * c.v_dim, m, out, h);
  AddBias(w.o_bias, m, out);
  AddBlock(out, m, x);
}

void Forward::Mlp(const MlpWeights& w, const float* in, int m, float* out) {
  const int width = w.down.k, h = w.down.n;
  float* gate_up = Scratch(kGateUp, std::size_t(m) * 2 * width);
  float* gated = Scratch(kGated, std::size_t(m) * width);
  PushGateUp(w, Prepare(w.gate_up, in, h, m), 0, m, gate_up);
  Run();
  kernels::SwiGlu(gate_up, 2 * width, m, width, gated, width, pool_);
  Linear(w.down, gated, width, m, out, h);
}

void Forward::Gather(const float* rows, int m, float* out) {
  const ModelConfig& c = weights_.config();
  const std::int64_t h = c.hidden_size, pairs = std::int64_t(m) * c.top_k;
  counts_.assign(c.experts + 1, 0);
  for (std::int64_t i = 0; i < pairs; ++i) ++counts_[expert_ids_[i] + 1];
  for (int e = 0; e < c.experts; ++e) counts_[e + 1] += counts_[e];
  order_.assign(counts_.begin(), counts_.end() - 1);
  slots_.resize(pairs);
  for (std::int64_t i = 0; i < pairs; ++i) {
    slots_[i] = order_[expert_ids_[i]]++;
    std::memcpy(out + slots_[i] * h, rows + i / c.top_k * h, h * sizeof(float));
  }
}

void Forward::Moe(const LayerWeights& w, int m, float* x, const Experts& experts, int moe_layer) {
  const ModelConfig& c = weights_.config();
  const int h = c.hidden_size, k = c.top_k, width = c.moe_intermediate_size;
  const std::int64_t pairs = std::int64_t(m) * k;
  float* normed = Scratch(kNormed, std::size_t(m) * h);
  kernels::RmsNorm(x, h, w.post_norm.data(), c.rms_norm_eps, m, h, normed, h, pool_);
  float* logits = Scratch(kLogits, std::size_t(m) * c.experts);
  Linear(w.router, normed, h, m, logits, c.experts);
  float* weight = Scratch(kWeight, pairs);
  expert_ids_.resize(pairs);
  kernels::Route(logits, c.experts, w.router_bias.data(), c.router_shape(), m, nullptr,
                 expert_ids_.data(), weight, pool_);
  if (experts) experts(moe_layer, expert_ids_.data());

  float* gathered = Scratch(kGathered, std::size_t(pairs) * h);
  Gather(normed, m, gathered);
  const int shared_width = w.shared.down.k;
  float* gate_up = Scratch(kExpertGateUp, std::size_t(pairs) * 2 * width);
  float* gated = Scratch(kExpertGated, std::size_t(pairs) * width);
  float* out = Scratch(kExpertOut, std::size_t(pairs) * h);
  float* shared_gate_up = Scratch(kSharedGateUp, std::size_t(m) * 2 * shared_width);
  float* shared_gated = Scratch(kSharedGated, std::size_t(m) * shared_width);
  float* shared = c.shared_experts > 0 ? Scratch(kShared, std::size_t(m) * h) : nullptr;

  // The shared expert runs beside the chosen ones: two regions, not four.
  const auto rows_of = [&](int e) { return counts_[e + 1] - counts_[e]; };
  const Input to_experts = Prepare(w.experts[0].gate_up, gathered, h, int(pairs), 0);
  for (int e = 0; e < c.experts; ++e) {
    const std::int64_t first = counts_[e];
    PushGateUp(w.experts[e], to_experts, first, rows_of(e), gate_up + first * 2 * width);
  }
  if (shared)
    PushGateUp(w.shared, Prepare(w.shared.gate_up, normed, h, m, 1), 0, m, shared_gate_up);
  Run();
  kernels::SwiGlu(gate_up, 2 * width, int(pairs), width, gated, width, pool_);
  if (shared)
    kernels::SwiGlu(shared_gate_up, 2 * shared_width, m, shared_width, shared_gated, shared_width,
                    pool_);
  const Input to_down = Prepare(w.experts[0].down, gated, width, int(pairs), 0);
  for (int e = 0; e < c.experts; ++e) {
    const std::int64_t first = counts_[e];
    Push(w.experts[e].down, to_down, first, rows_of(e), out + first * h, h);
  }
  if (shared)
    Push(w.shared.down, Prepare(w.shared.down, shared_gated, shared_width, m, 1), 0, m, shared, h);
  Run();
  if (!weights_.numerics().rounds()) {
    kernels::CombineExperts(out, h, slots_.data(), weight, k, shared, h, x, h, m, h, x, h, pool_);
    return;
  }
  float* block = Scratch(kBlockOut, std::size_t(m) * h);
  kernels::CombineExperts(out, h, slots_.data(), weight, k, shared, h, nullptr, h, m, h, block, h,
                          pool_);
  AddBlock(block, m, x);
}

}  // namespace temper::engine
