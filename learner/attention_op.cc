// Latent attention: the kernels' absorbed form forward, the naive form backward.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/attention.h"
#include "kernels/cache_row.h"
#include "kernels/ops.h"
#include "learner/core/attention_gradient.h"
#include "learner/core/gradients.h"
#include "learner/device.h"
#include "learner/ops.h"
#include "learner/products.h"

namespace temper::learner {

namespace {

constexpr float kLatentEps = 1e-6f;  // the low-rank norms' class default, not rms_norm_eps

/// Sequences, each behind its trunk, padded to one length.
struct Bucket {
  std::vector<int> sequences;
  int length = 0;
};

/// Sorted by length; a bucket ends where the shortest would be padded by more than an eighth, or
/// its scores grow past 4 MiB.
std::vector<Bucket> Buckets(const Pack& pack, int heads) {
  constexpr std::int64_t kScores = std::int64_t{1} << 20;
  std::vector<int> order(pack.sequences());
  std::iota(order.begin(), order.end(), 0);
  const auto chain = [&](int s) { return pack.before(s) + pack.length(s); };
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return chain(a) > chain(b); });
  std::vector<Bucket> buckets;
  for (int s : order) {
    const int length = chain(s);
    if (pack.length(s) == 0) continue;
    const bool fits = !buckets.empty() &&
                      buckets.back().length - length <= buckets.back().length / 8 + 1 &&
                      std::int64_t(buckets.back().sequences.size() + 1) * heads *
                              buckets.back().length * buckets.back().length <=
                          kScores;
    if (!fits) buckets.push_back({{}, length});
    buckets.back().sequences.push_back(s);
  }
  return buckets;
}

/// Rotary embedding of adjacent pairs by differentiable operations: x [T, heads, R].
torch::Tensor PlainRope(const torch::Tensor& x, const torch::Tensor& cos,
                        const torch::Tensor& sin) {
  const torch::Tensor pairs = x.reshape({x.size(0), x.size(1), x.size(2) / 2, 2});
  const torch::Tensor a = pairs.select(3, 0), b = pairs.select(3, 1);
  return torch::stack({a * cos - b * sin, b * cos + a * sin}, 3).reshape(x.sizes());
}

/// Where attention finds the rows of a pack: `stride` bytes apart.
struct CachedRows {
  std::vector<std::byte> storage;  // empty: the rows are the caller's own
  const std::byte* base = nullptr;
  std::int64_t stride = 0;
};

/// Rows [T][L + R] as the cache stores them; `rows` becomes what is read back.
CachedRows StoreRows(const OpContext& context, float* rows) {
  const engine::ModelConfig& c = *context.config;
  const kernels::CacheType type = context.numerics.cache;
  const std::int64_t m = context.pack->tokens(), row = c.latent_dim();
  CachedRows out;
  if (type == kernels::CacheType::kF32) {
    out.base = reinterpret_cast<const std::byte*>(rows);
    out.stride = row * std::int64_t(sizeof(float));
    return out;
  }
  out.stride = std::int64_t(kernels::CacheRowBytes(type, c.kv_lora_rank, c.qk_rope_dim));
  out.storage.resize(std::size_t(m * out.stride));
  out.base = out.storage.data();
  ForRows(*context.pool, m, 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      std::byte* at = out.storage.data() + t * out.stride;
      kernels::StoreCacheRow(type, rows + t * row, c.kv_lora_rank, c.qk_rope_dim, at);
      kernels::LoadCacheRow(type, at, c.kv_lora_rank, c.qk_rope_dim, rows + t * row);
    }
  });
  return out;
}

/// What attention reads of rows [T][L + R], by LibTorch's operations: bitwise StoreRows().
torch::Tensor AsCached(const OpContext& context, const torch::Tensor& rows) {
  if (context.numerics.cache == kernels::CacheType::kF32) return rows;
  const int latent = context.config->kv_lora_rank, rope = context.config->qk_rope_dim;
  const auto bf16 = [](const torch::Tensor& x) {
    return x.to(torch::kBFloat16).to(torch::kFloat32);
  };
  if (context.numerics.cache == kernels::CacheType::kBf16) return bf16(rows);
  return torch::cat({E4m3Blocks(rows.narrow(1, 0, latent), kernels::ScaleRecipe::kPow2),
                     bf16(rows.narrow(1, latent, rope))},
                    1);
}

/// The rows that each sequence sees, by position: its trunk's and its own.
std::vector<const void*> Chains(const Pack& pack, const CachedRows& cache) {
  std::vector<const void*> keys;
  const auto add = [&](int s) {
    for (int t = pack.start[s]; t < pack.start[s + 1]; ++t)
      keys.push_back(cache.base + t * cache.stride);
  };
  for (int s = 0; s < pack.sequences(); ++s) {
    if (pack.trunk[s] >= 0) add(pack.trunk[s]);
    add(s);
  }
  return keys;
}

}  // namespace

Tensors AttentionOp::Forward(const Tensors& in) {
  if (context_.device) {
    const torch::Tensor out =
        context_.device->Attention(context_, *w_, in[0], in[1], in[2], &latent_);
    latent_ = AsCached(context_, latent_);
    return {out};
  }
  const engine::ModelConfig& c = *context_.config;
  const Pack& pack = *context_.pack;
  kernels::ThreadPool& pool = *context_.pool;
  const int m = pack.tokens(), heads = c.heads, qk = c.qk_dim(), nope = c.qk_nope_dim,
            rope = c.qk_rope_dim;
  const int latent = c.kv_lora_rank, row = c.latent_dim();

  latent_ = torch::empty({m, row});
  float* kv = latent_.data_ptr<float>();
  std::memcpy(kv, in[1].data_ptr<float>(), std::size_t(m) * row * sizeof(float));
  kernels::RmsNorm(kv, row, w_->kv_a_norm.data(), kLatentEps, m, latent, kv, row, pool);
  kernels::Rope(kv + latent, row, 1, 0, rope, pack.position.data(), m, context_.rope_table, pool);
  const CachedRows cache = StoreRows(context_, kv);

  rotated_q_ = in[0].clone();
  float* q = rotated_q_.data_ptr<float>();
  kernels::Rope(q + nope, std::int64_t(heads) * qk, heads, qk, rope, pack.position.data(), m,
                context_.rope_table, pool);
  torch::Tensor absorbed = torch::empty({m, heads, row});
  float* a = absorbed.data_ptr<float>();
  std::vector<kernels::LinearItem> items;
  for (int h = 0; h < heads; ++h) {
    items.push_back({w_->w_uk[h].view(), q + h * qk, std::int64_t(heads) * qk, m, a + h * row,
                     std::int64_t(heads) * row});
  }
  kernels::LinearMany(items.data(), heads, pool);
  for (std::int64_t i = 0; i < std::int64_t(m) * heads; ++i) {
    std::memcpy(a + i * row + latent, q + i * qk + nope, rope * sizeof(float));
  }

  const std::vector<const void*> keys = Chains(pack, cache);
  std::vector<kernels::AttentionRow> rows(m);
  const void* const* chain = keys.data();
  for (int s = 0; s < pack.sequences(); ++s) {
    for (int t = pack.start[s]; t < pack.start[s + 1]; ++t) rows[t] = {chain, pack.position[t] + 1};
    chain += pack.before(s) + pack.length(s);
  }
  torch::Tensor latent_out = torch::empty({m, heads, latent});
  float* lo = latent_out.data_ptr<float>();
  kernels::MlaAttention(a, rows.data(), m, heads, latent, rope, float(c.attention_scale()),
                        context_.numerics.cache, 0, lo, pool);
  torch::Tensor out = torch::empty({m, std::int64_t(heads) * c.v_dim});
  items.clear();
  for (int h = 0; h < heads; ++h) {
    items.push_back({w_->w_uv[h].view(), lo + h * latent, std::int64_t(heads) * latent, m,
                     out.data_ptr<float>() + h * c.v_dim, std::int64_t(heads) * c.v_dim});
  }
  kernels::LinearMany(items.data(), heads, pool);
  return {out};
}

Tensors AttentionOp::Plain(const Tensors& in) {
  const engine::ModelConfig& c = *context_.config;
  const Pack& pack = *context_.pack;
  const int heads = c.heads, nope = c.qk_nope_dim, rope = c.qk_rope_dim, latent = c.kv_lora_rank,
            v_dim = c.v_dim;
  const std::int64_t m = pack.tokens();
  const int longest = 1 + *std::max_element(pack.position.begin(), pack.position.end());
  const torch::Tensor position =
      torch::from_blob(const_cast<std::int32_t*>(pack.position.data()), {m}, torch::kInt32)
          .to(torch::kInt64);
  const torch::Tensor angle =
      torch::from_blob(const_cast<float*>(context_.rope_table), {longest, rope / 2, 2})
          .index_select(0, position)
          .unsqueeze(1)
          .to(in[0].device());
  const torch::Tensor cos = angle.select(3, 0), sin = angle.select(3, 1);

  const torch::Tensor c_kv = in[1].narrow(1, 0, latent);
  torch::Tensor normed = c_kv * torch::rsqrt(c_kv.square().mean(-1, true) + kLatentEps) * in[2];
  const torch::Tensor q = in[0].view({m, heads, nope + rope});
  const torch::Tensor query =
      torch::cat({q.narrow(2, 0, nope), PlainRope(q.narrow(2, nope, rope), cos, sin)}, 2);
  torch::Tensor k_rope = PlainRope(in[1].narrow(1, latent, rope).unsqueeze(1), cos, sin);
  if (context_.numerics.cache != kernels::CacheType::kF32) {
    const torch::Tensor stored = torch::cat({normed, k_rope.squeeze(1)}, 1);
    // What Forward read, where it has run: a row that LibTorch computes may round to another code.
    const torch::Tensor read = latent_.defined() ? latent_ : AsCached(context_, stored.detach());
    const torch::Tensor through = stored + (read - stored).detach();
    normed = through.narrow(1, 0, latent);
    k_rope = through.narrow(1, latent, rope).unsqueeze(1);
  }
  k_rope = k_rope.expand({m, heads, rope});
  const torch::Tensor kvb = torch::mm(normed, in[3].t()).view({m, heads, nope + v_dim});
  const torch::Tensor key = torch::cat({kvb.narrow(2, 0, nope), k_rope}, 2),
                      value = kvb.narrow(2, nope, v_dim);

  Tensors parts;
  std::vector<std::int64_t> place(m);  // of each token among the concatenated padded rows
  std::int64_t base = 0;
  for (const Bucket& bucket : Buckets(pack, heads)) {
    const std::int64_t n = std::int64_t(bucket.sequences.size()), length = bucket.length;
    std::vector<std::int64_t> index(n * length, 0);
    for (std::int64_t b = 0; b < n; ++b) {
      const int s = bucket.sequences[b], before = pack.before(s);
      for (int t = 0; t < before; ++t) index[b * length + t] = pack.start[pack.trunk[s]] + t;
      for (int t = 0; t < pack.length(s); ++t) {
        index[b * length + before + t] = pack.start[s] + t;
        place[pack.start[s] + t] = base + b * length + before + t;
      }
    }
    base += n * length;
    const torch::Tensor rows = IndexFor(query, index);
    const auto take = [&](const torch::Tensor& x) {
      return x.index_select(0, rows).view({n, length, heads, x.size(2)}).transpose(1, 2);
    };
    const torch::Tensor hidden =
        torch::ones({length, length}, query.options().dtype(torch::kBool)).triu(1);
    const torch::Tensor scores =
        (torch::matmul(take(query), take(key).transpose(2, 3)) * c.attention_scale())
            .masked_fill(hidden, -std::numeric_limits<float>::infinity());
    parts.push_back(torch::matmul(torch::softmax(scores, -1), take(value))
                        .transpose(1, 2)
                        .reshape({n * length, heads * v_dim}));
  }
  return {torch::cat(parts).index_select(0, IndexFor(query, place))};
}

Tensors AttentionOp::Backward(const Tensors& in, const Tensors& grad,
                              const std::vector<bool>& needs) {
  if (context_.device) return Op::Backward(in, grad, needs);
  const engine::ModelConfig& c = *context_.config;
  const Pack& pack = *context_.pack;
  kernels::ThreadPool& pool = *context_.pool;
  const int heads = c.heads, nope = c.qk_nope_dim, rope = c.qk_rope_dim, latent = c.kv_lora_rank,
            row = c.latent_dim();
  const int qk = nope + rope;
  const std::int64_t m = pack.tokens();
  const torch::Tensor g = grad[0].contiguous();
  const torch::Tensor normed = latent_.narrow(1, 0, latent);
  const torch::Tensor kv = torch::empty({m, in[3].size(0)});  // [T, heads (P + V)]
  Multiply(Form::kOutputs, ProductOf(Form::kOutputs, normed, in[3], kv), pool);

  torch::Tensor d_q = torch::empty({m, std::int64_t(heads) * qk}), d_kvb = torch::empty_like(kv);
  torch::Tensor d_shared = torch::empty({m, std::int64_t(heads) * rope}),
                d_kv = torch::empty({m, row});
  AttentionGradientArgs args;
  args.pack = &pack;
  args.heads = heads;
  args.nope = nope;
  args.rope = rope;
  args.value = c.v_dim;
  args.scale = float(c.attention_scale());
  args.q = rotated_q_.data_ptr<float>();
  args.kv = kv.data_ptr<float>();
  args.shared = latent_.data_ptr<float>() + latent;
  args.ld_shared = row;
  args.g = g.data_ptr<float>();
  args.d_q = d_q.data_ptr<float>();
  args.d_kv = d_kvb.data_ptr<float>();
  args.d_shared = d_shared.data_ptr<float>();
  AttentionGradient(args, pool);

  RopeTransposed(args.d_q + nope, std::int64_t(heads) * qk, heads, qk, rope, pack.position.data(),
                 m, context_.rope_table, pool);
  float* d_rope = d_kv.data_ptr<float>() + latent;
  SumHeads(args.d_shared, m, heads, rope, d_rope, row, pool);
  RopeTransposed(d_rope, row, 1, 0, rope, pack.position.data(), m, context_.rope_table, pool);
  const torch::Tensor d_normed = InputGradient(d_kvb, in[3], pool);
  torch::Tensor d_norm = torch::empty({latent});
  RmsNormGradient(in[1].data_ptr<float>(), row, in[2].data_ptr<float>(), kLatentEps,
                  d_normed.data_ptr<float>(), latent, m, latent, d_kv.data_ptr<float>(), row,
                  d_norm.data_ptr<float>(), pool);
  return {d_q, d_kv, d_norm, WeightGradient(d_kvb, normed, needs[3], pool)};
}

}  // namespace temper::learner
