// Lays out every slot of a model.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/weight_slot.h"
#include "kernels/bf16.h"

namespace temper::engine {

namespace {

using kernels::kBlock;
using kernels::WeightType;

int Blocks(int n) { return (n + kBlock - 1) / kBlock; }

PackedLinear Allocate(Arena& arena, WeightType type, int n, int k) {
  PackedLinear out{AlignedBytes(kernels::PackedBytes(type, n, k), arena), {}, n, k, type};
  if (type == WeightType::kFp8) out.scale.resize(std::size_t(Blocks(n)) * Blocks(k));
  return out;
}

std::vector<std::uint16_t> ToBf16(const float* values, std::size_t count) {
  std::vector<std::uint16_t> out(count);
  kernels::EncodeBf16(values, std::int64_t(count), out.data());
  return out;
}

void PackRows(PackedLinear& out, int first, int rows, const std::uint16_t* w) {
  kernels::PackRows(w, out.k, rows, out.k, first,
                    reinterpret_cast<std::uint16_t*>(out.storage.data()));
}

/// FP32 or BF16 rows [first, first + rows) of a packed matrix.
void PackRows(PackedLinear& out, int first, int rows, const float* w) {
  if (out.type == WeightType::kF32) {
    kernels::PackRows(w, out.k, rows, out.k, first, reinterpret_cast<float*>(out.storage.data()));
  } else {
    PackRows(out, first, rows, ToBf16(w, std::size_t(rows) * out.k).data());
  }
}

/// Codes and multipliers as rows [first, first + rows), `first` a multiple of 128.
void PackCodes(PackedLinear& out, int first, int rows, const std::uint8_t* codes,
               const float* scales) {
  kernels::PackRows(codes, out.k, rows, out.k, first,
                    reinterpret_cast<std::uint8_t*>(out.storage.data()));
  const std::size_t columns = Blocks(out.k);
  for (std::size_t i = 0; i < Blocks(rows) * columns; ++i)
    out.scale[first / kBlock * columns + i] = scales[i] * kernels::kFp8Shift;
}

bool AllPowersOfTwo(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float x) {
    int e = 0;
    return std::frexp(x, &e) == 0.5f;
  });
}

/// W [n, k] read as its transpose [k, n].
void PackTransposed(PackedLinear& out, const float* w) {
  if (out.type == WeightType::kF32) {
    kernels::PackLinearTransposed(w, out.n, out.n, out.k,
                                  reinterpret_cast<float*>(out.storage.data()));
  } else {
    kernels::PackBf16Transposed(ToBf16(w, std::size_t(out.n) * out.k).data(), out.n, out.n, out.k,
                                reinterpret_cast<std::uint16_t*>(out.storage.data()));
  }
}

}  // namespace

/// Lays out every slot of the model.
class Weights::Builder {
 public:
  explicit Builder(Weights& weights)
      : w_(weights),
        c_(weights.config_),
        fp8_(weights.numerics_.fp8()),
        high_(weights.numerics_.rounds() ? WeightType::kBf16 : WeightType::kF32),
        low_(fp8_ ? WeightType::kFp8 : high_) {}

  void Run() {
    const int h = c_.hidden_size, vocab = c_.vocab_size;
    w_.norm_.resize(h);
    w_.head_ = Allocate(w_.arena_, high_, c_.scalar_head ? 1 : vocab, h);
    w_.layers_.resize(c_.num_layers + c_.mtp_layers);
    if (high_ == WeightType::kF32) {
      w_.embedding_ = AlignedFloats(std::size_t(vocab) * h);
    } else {
      w_.embedding_bf16_ = AlignedBytes(std::size_t(vocab) * h * sizeof(std::uint16_t));
    }
    AddEmbedding(vocab, h);
    Add("model.norm.weight", 1, h,
        [](Weights& w, int, int, const float* v) { w.SetVector(w.norm_, v, true); });
    if (!c_.tie_word_embeddings) {
      Rows(c_.scalar_head ? "score.weight" : "lm_head.weight", w_.head_.n, 0,
           [](Weights& w) -> PackedLinear& { return w.head_; });
    }
    for (int i = 0; i < int(w_.layers_.size()); ++i) Layer(i);
  }

 private:
  void AddEmbedding(int vocab, int h) {
    Slot& slot = Add("model.embed_tokens.weight", vocab, h,
                     [h](Weights& w, int first, int rows, const float* v) {
                       const std::int64_t at = std::int64_t(first) * h,
                                          count = std::int64_t(rows) * h;
                       if (!w.numerics_.rounds()) {
                         std::copy_n(v, count, w.embedding_.data() + at);
                       } else {
                         kernels::EncodeBf16(v, count, w.embedding_bf16() + at);
                       }
                       if (w.config_.tie_word_embeddings) PackRows(w.head_, first, rows, v);
                     });
    if (high_ != WeightType::kBf16) return;
    slot.put_bf16 = [h](Weights& w, int first, int rows, const std::uint16_t* v) {
      std::copy_n(v, std::int64_t(rows) * h, w.embedding_bf16() + std::int64_t(first) * h);
      if (w.config_.tie_word_embeddings) PackRows(w.head_, first, rows, v);
    };
  }
  template <typename Put>
  Slot& Add(const std::string& name, int rows, int k, Put put) {
    auto slot = std::make_shared<Slot>();
    slot->rows = rows;
    slot->k = k;
    slot->put = std::move(put);
    return *(w_.slots_[name] = std::move(slot));
  }
  void Vector(const std::string& name, int count, std::vector<float> LayerWeights::*member, int i,
              bool rounds = true) {
    (w_.layers_[i].*member).resize(count);
    Add(name, 1, count, [member, i, rounds](Weights& w, int, int, const float* v) {
      w.SetVector(w.layers_[i].*member, v, rounds);
    });
  }
  void Bias(const std::string& name, int count, std::vector<float> LayerWeights::*member, int i) {
    if (c_.attention_bias) Vector(name, count, member, i);
  }
  /// `find` gives the matrix of the (possibly moved) Weights; the slot is its rows [first, ...).
  template <typename Find>
  void Rows(const std::string& name, int rows, int first, Find find) {
    const PackedLinear& p = find(w_);
    Slot& slot = Add(name, rows, p.k, [find, first](Weights& w, int at, int count, const float* v) {
      PackRows(find(w), first + at, count, v);
    });
    if (p.type == WeightType::kBf16) {
      slot.put_bf16 = [find, first](Weights& w, int at, int count, const std::uint16_t* v) {
        PackRows(find(w), first + at, count, v);
      };
    } else if (p.type == WeightType::kFp8) {
      slot.put_codes = [find, first](Weights& w, int at, int count, const std::uint8_t* codes,
                                     const float* s) {
        PackCodes(find(w), first + at, count, codes, s);
      };
    }
  }
  void Linear(const std::string& name, WeightType type, int n, int k,
              PackedLinear LayerWeights::*member, int i) {
    w_.layers_[i].*member = Allocate(w_.arena_, type, n, k);
    Rows(name, n, 0, [member, i](Weights& w) -> PackedLinear& { return w.layers_[i].*member; });
  }
  template <typename Find>
  void Mlp(const std::string& prefix, int width, Find find) {
    const int h = c_.hidden_size;
    MlpWeights& mlp = find(w_);
    // Gate and up share a matrix where their blocks of 128 rows line up.
    const bool split = fp8_ && width % kBlock != 0;
    mlp.gate_up = Allocate(w_.arena_, low_, split ? width : 2 * width, h);
    if (split) mlp.up = Allocate(w_.arena_, low_, width, h);
    mlp.down = Allocate(w_.arena_, low_, h, width);
    const auto gate_up = [find](Weights& w) -> PackedLinear& { return find(w).gate_up; };
    Rows(prefix + "gate_proj.weight", width, 0, gate_up);
    if (split) {
      Rows(prefix + "up_proj.weight", width, 0,
           [find](Weights& w) -> PackedLinear& { return find(w).up; });
    } else {
      Rows(prefix + "up_proj.weight", width, width, gate_up);
    }
    Rows(prefix + "down_proj.weight", h, 0,
         [find](Weights& w) -> PackedLinear& { return find(w).down; });
  }
  void KvB(const std::string& name, int i);
  void Attention(const std::string& a, int i);
  void Layer(int i);

  Weights& w_;
  const ModelConfig& c_;
  const bool fp8_;
  const WeightType high_, low_;
};

/// kv_b_proj is kept as each head's W_UK^T and W_UV. In the FP8 modes their blocks stay blocks
/// where heads are multiples of 128 wide; other shapes keep the dequantised values in FP32.
void Weights::Builder::KvB(const std::string& name, int i) {
  const int latent = c_.kv_lora_rank, nope = c_.qk_nope_dim, v_dim = c_.v_dim;
  const bool blocks = fp8_ && nope % kBlock == 0 && v_dim % kBlock == 0;
  w_.AllocateHeads(i, blocks ? WeightType::kFp8 : high_);
  const int rows = c_.heads * (nope + v_dim);
  const auto put = [i](Weights& w, int, int, const float* v) {
    const ModelConfig& mc = w.config_;
    for (int n = 0; n < mc.heads; ++n) {
      const float* head = v + std::int64_t(n) * (mc.qk_nope_dim + mc.v_dim) * mc.kv_lora_rank;
      PackTransposed(w.layers_[i].w_uk[n], head);
      PackRows(w.layers_[i].w_uv[n], 0, mc.v_dim,
               head + std::int64_t(mc.qk_nope_dim) * mc.kv_lora_rank);
    }
  };
  Slot& slot = Add(name, rows, latent, put);
  slot.whole = true;
  if (!fp8_) return;
  slot.put_codes = [i, blocks, put](Weights& w, int, int rows, const std::uint8_t* codes,
                                    const float* scales) {
    const ModelConfig& mc = w.config_;
    const int l = mc.kv_lora_rank;
    if (!blocks) {
      std::vector<float> values(std::size_t(rows) * l);
      kernels::ThreadPool pool(1);
      kernels::DequantizeWeight(codes, l, rows, l, scales, values.data(), l, pool);
      w.AllocateHeads(i, AllPowersOfTwo({scales, std::size_t(Blocks(rows)) * Blocks(l)})
                             ? WeightType::kBf16
                             : WeightType::kF32);
      put(w, 0, rows, values.data());
      return;
    }
    const int columns = Blocks(l), uk_blocks = mc.qk_nope_dim / kBlock;
    for (int n = 0; n < mc.heads; ++n) {
      const int row = n * (mc.qk_nope_dim + mc.v_dim);
      PackedLinear& uk = w.layers_[i].w_uk[n];
      kernels::PackFp8Transposed(codes + std::int64_t(row) * l, l, uk.n, uk.k,
                                 reinterpret_cast<std::uint8_t*>(uk.storage.data()));
      for (int a = 0; a < columns; ++a) {
        for (int b = 0; b < uk_blocks; ++b) {
          uk.scale[a * uk_blocks + b] =
              scales[(row / kBlock + b) * columns + a] * kernels::kFp8Shift;
        }
      }
      const int value_row = row + mc.qk_nope_dim;
      PackCodes(w.layers_[i].w_uv[n], 0, mc.v_dim, codes + std::int64_t(value_row) * l,
                scales + std::int64_t(value_row / kBlock) * columns);
    }
  };
}

void Weights::Builder::Attention(const std::string& a, int i) {
  const int h = c_.hidden_size, q_rows = c_.heads * c_.qk_dim();
  if (c_.q_lora_rank == 0) {
    Linear(a + "q_proj.weight", low_, q_rows, h, &LayerWeights::q, i);
  } else {
    Linear(a + "q_a_proj.weight", low_, c_.q_lora_rank, h, &LayerWeights::q_a, i);
    Bias(a + "q_a_proj.bias", c_.q_lora_rank, &LayerWeights::q_a_bias, i);
    Vector(a + "q_a_layernorm.weight", c_.q_lora_rank, &LayerWeights::q_a_norm, i);
    Linear(a + "q_b_proj.weight", low_, q_rows, c_.q_lora_rank, &LayerWeights::q_b, i);
  }
  Linear(a + "kv_a_proj_with_mqa.weight", low_, c_.latent_dim(), h, &LayerWeights::kv_a, i);
  Bias(a + "kv_a_proj_with_mqa.bias", c_.latent_dim(), &LayerWeights::kv_a_bias, i);
  Vector(a + "kv_a_layernorm.weight", c_.kv_lora_rank, &LayerWeights::kv_a_norm, i);
  KvB(a + "kv_b_proj.weight", i);
  Linear(a + "o_proj.weight", low_, h, c_.heads * c_.v_dim, &LayerWeights::o, i);
  Bias(a + "o_proj.bias", h, &LayerWeights::o_bias, i);
}

void Weights::Builder::Layer(int i) {
  const std::string p = "model.layers." + std::to_string(i) + ".";
  const int h = c_.hidden_size;
  LayerWeights& layer = w_.layers_[i];
  Vector(p + "input_layernorm.weight", h, &LayerWeights::input_norm, i);
  Attention(p + "self_attn.", i);
  Vector(p + "post_attention_layernorm.weight", h, &LayerWeights::post_norm, i);
  layer.moe = c_.IsMoe(i);
  if (!layer.moe) {
    Mlp(p + "mlp.", c_.intermediate_size,
        [i](Weights& w) -> MlpWeights& { return w.layers_[i].mlp; });
  } else {
    Linear(p + "mlp.gate.weight", high_, c_.experts, h, &LayerWeights::router, i);
    if (c_.has_router_bias()) {
      Vector(p + "mlp.gate.e_score_correction_bias", c_.experts, &LayerWeights::router_bias, i,
             /*rounds=*/false);
    }
    layer.experts.resize(c_.experts);
    for (int e = 0; e < c_.experts; ++e) {
      Mlp(p + "mlp.experts." + std::to_string(e) + ".", c_.moe_intermediate_size,
          [i, e](Weights& w) -> MlpWeights& { return w.layers_[i].experts[e]; });
    }
    if (c_.shared_experts > 0) {
      Mlp(p + "mlp.shared_experts.", c_.moe_intermediate_size * c_.shared_experts,
          [i](Weights& w) -> MlpWeights& { return w.layers_[i].shared; });
    }
  }
  if (i < c_.num_layers) return;
  Vector(p + "enorm.weight", h, &LayerWeights::enorm, i);
  Vector(p + "hnorm.weight", h, &LayerWeights::hnorm, i);
  Linear(p + "eh_proj.weight", high_, h, 2 * h, &LayerWeights::eh, i);
  Vector(p + "shared_head.norm.weight", h, &LayerWeights::head_norm, i);
}

Weights::Weights(const ModelConfig& config, const Numerics& numerics)
    : config_(config), numerics_(numerics) {
  Builder(*this).Run();
}

void Weights::AllocateHeads(int i, kernels::WeightType type) {
  LayerWeights& layer = layers_[i];
  if (!layer.w_uk.empty() && layer.w_uk[0].type == type) return;
  layer.w_uk.clear();
  layer.w_uv.clear();
  // All of one kind side by side: memory is read in order.
  for (int n = 0; n < config_.heads; ++n)
    layer.w_uk.push_back(Allocate(arena_, type, config_.kv_lora_rank, config_.qk_nope_dim));
  for (int n = 0; n < config_.heads; ++n)
    layer.w_uv.push_back(Allocate(arena_, type, config_.v_dim, config_.kv_lora_rank));
}

}  // namespace temper::engine
