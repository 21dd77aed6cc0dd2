#include "engine/weights.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <new>

#include "configs/error.h"
#include "engine/checkpoint.h"

namespace temper::engine {

AlignedFloats::AlignedFloats(std::size_t count) : size_(count) {
  const std::size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
  data_.reset(static_cast<float*>(std::aligned_alloc(64, std::max<std::size_t>(bytes, 64))));
  if (!data_) throw std::bad_alloc();
  std::fill_n(data_.get(), bytes / sizeof(float), 0.0f);
}

void AlignedFloats::Free::operator()(float* p) const { std::free(p); }

namespace {

PackedLinear Allocate(int n, int k) { return {AlignedFloats(kernels::PackedSize(n, k)), n, k}; }

void Pack(PackedLinear& out, const float* w) {
  kernels::PackLinear(w, out.k, out.n, out.k, out.storage.data());
}

/// Packs `rows` rows of w into the rows [first, first + rows) of a packed matrix that others share
/// (gate above up).
void PackRows(PackedLinear& out, int first, int rows, const float* w) {
  constexpr int kPanel = kernels::kPanel;
  const std::int64_t k = out.k;
  for (int i = 0; i < rows; ++i) {
    const int row = first + i;
    float* to = out.storage.data() + row / kPanel * k * kPanel + row % kPanel;
    const float* from = w + i * k;
    for (std::int64_t j = 0; j < k; ++j) to[j * kPanel] = from[j];
  }
}

void Copy(std::vector<float>& out, std::span<const float> values) {
  std::copy(values.begin(), values.end(), out.begin());
}

}  // namespace

struct Weights::Slot {
  std::size_t count = 0;
  bool set = false;
  std::function<void(Weights&, std::span<const float>)> put;
};

Weights::Weights(const ModelConfig& config) : config_(config) {
  const ModelConfig& c = config_;
  const int h = c.hidden_size;
  embedding_.resize(std::size_t(c.vocab_size) * h);
  norm_.resize(h);
  head_ = Allocate(c.vocab_size, h);
  layers_.resize(c.num_layers + c.mtp_layers);

  const auto slot = [this](const std::string& name, std::int64_t count, auto put) {
    auto s = std::make_shared<Slot>();
    s->count = count;
    s->put = std::move(put);
    slots_[name] = std::move(s);
  };
  const auto vector_slot = [&](const std::string& name, int count, auto member, int layer) {
    layers_[layer].*member = std::vector<float>(count);
    slot(name, count, [member, layer](Weights& w, std::span<const float> v) {
      Copy(w.layers_[layer].*member, v);
    });
  };
  const auto linear_slot = [&](const std::string& name, int n, int k, auto member, int layer) {
    layers_[layer].*member = Allocate(n, k);
    slot(name, std::int64_t(n) * k, [member, layer](Weights& w, std::span<const float> v) {
      Pack(w.layers_[layer].*member, v.data());
    });
  };
  // `find` gives the MLP of the (possibly moved) Weights.
  const auto mlp_slots = [&](const std::string& prefix, int width, auto find) {
    MlpWeights& mlp = find(*this);
    mlp.gate_up = Allocate(2 * width, h);
    mlp.down = Allocate(h, width);
    for (int up = 0; up < 2; ++up) {
      slot(prefix + (up ? "up_proj.weight" : "gate_proj.weight"), std::int64_t(width) * h,
           [find, width, up](Weights& w, std::span<const float> v) {
             PackRows(find(w).gate_up, up * width, width, v.data());
           });
    }
    slot(prefix + "down_proj.weight", std::int64_t(width) * h,
         [find](Weights& w, std::span<const float> v) { Pack(find(w).down, v.data()); });
  };

  slot("model.embed_tokens.weight", std::int64_t(c.vocab_size) * h,
       [](Weights& w, std::span<const float> v) {
         Copy(w.embedding_, v);
         if (w.config_.tie_word_embeddings) Pack(w.head_, v.data());
       });
  slot("model.norm.weight", h, [](Weights& w, std::span<const float> v) { Copy(w.norm_, v); });
  if (!c.tie_word_embeddings) {
    slot("lm_head.weight", std::int64_t(c.vocab_size) * h,
         [](Weights& w, std::span<const float> v) { Pack(w.head_, v.data()); });
  }

  for (int i = 0; i < int(layers_.size()); ++i) {
    const std::string p = "model.layers." + std::to_string(i) + ".";
    const std::string a = p + "self_attn.";
    LayerWeights& layer = layers_[i];
    vector_slot(p + "input_layernorm.weight", h, &LayerWeights::input_norm, i);
    const int q_rows = c.heads * c.qk_dim();
    if (c.q_lora_rank == 0) {
      linear_slot(a + "q_proj.weight", q_rows, h, &LayerWeights::q, i);
    } else {
      linear_slot(a + "q_a_proj.weight", c.q_lora_rank, h, &LayerWeights::q_a, i);
      vector_slot(a + "q_a_layernorm.weight", c.q_lora_rank, &LayerWeights::q_a_norm, i);
      linear_slot(a + "q_b_proj.weight", q_rows, c.q_lora_rank, &LayerWeights::q_b, i);
    }
    linear_slot(a + "kv_a_proj_with_mqa.weight", c.latent_dim(), h, &LayerWeights::kv_a, i);
    vector_slot(a + "kv_a_layernorm.weight", c.kv_lora_rank, &LayerWeights::kv_a_norm, i);
    for (int n = 0; n < c.heads; ++n) {
      layer.w_uk.push_back(Allocate(c.kv_lora_rank, c.qk_nope_dim));
      layer.w_uv.push_back(Allocate(c.v_dim, c.kv_lora_rank));
    }
    const int kv_rows = c.heads * (c.qk_nope_dim + c.v_dim);
    slot(a + "kv_b_proj.weight", std::int64_t(kv_rows) * c.kv_lora_rank,
         [i](Weights& w, std::span<const float> v) {
           const ModelConfig& mc = w.config_;
           const std::int64_t l = mc.kv_lora_rank;
           for (int n = 0; n < mc.heads; ++n) {
             const float* head = v.data() + n * (mc.qk_nope_dim + mc.v_dim) * l;
             PackedLinear& uk = w.layers_[i].w_uk[n];
             kernels::PackLinearTransposed(head, l, uk.n, uk.k, uk.storage.data());
             Pack(w.layers_[i].w_uv[n], head + mc.qk_nope_dim * l);
           }
         });
    linear_slot(a + "o_proj.weight", h, c.heads * c.v_dim, &LayerWeights::o, i);
    vector_slot(p + "post_attention_layernorm.weight", h, &LayerWeights::post_norm, i);
    layer.moe = c.IsMoe(i);
    if (!layer.moe) {
      mlp_slots(p + "mlp.", c.intermediate_size,
                [i](Weights& w) -> MlpWeights& { return w.layers_[i].mlp; });
    } else {
      linear_slot(p + "mlp.gate.weight", c.experts, h, &LayerWeights::router, i);
      if (c.has_router_bias()) {
        vector_slot(p + "mlp.gate.e_score_correction_bias", c.experts, &LayerWeights::router_bias,
                    i);
      }
      layer.experts.resize(c.experts);
      for (int e = 0; e < c.experts; ++e) {
        mlp_slots(p + "mlp.experts." + std::to_string(e) + ".", c.moe_intermediate_size,
                  [i, e](Weights& w) -> MlpWeights& { return w.layers_[i].experts[e]; });
      }
      if (c.shared_experts > 0) {
        mlp_slots(p + "mlp.shared_experts.", c.moe_intermediate_size * c.shared_experts,
                  [i](Weights& w) -> MlpWeights& { return w.layers_[i].shared; });
      }
    }
    if (i >= c.num_layers) {
      vector_slot(p + "enorm.weight", h, &LayerWeights::enorm, i);
      vector_slot(p + "hnorm.weight", h, &LayerWeights::hnorm, i);
      linear_slot(p + "eh_proj.weight", h, 2 * h, &LayerWeights::eh, i);
      vector_slot(p + "shared_head.norm.weight", h, &LayerWeights::head_norm, i);
    }
  }
}

void Weights::Set(const std::string& name, std::span<const float> values) {
  const auto it = slots_.find(name);
  if (it == slots_.end()) throw UserError("weights: " + name + " is no tensor of this model");
  Slot& slot = *it->second;
  if (values.size() != slot.count) {
    throw UserError("weights: " + name + " has " + std::to_string(values.size()) +
                    " values, the config wants " + std::to_string(slot.count));
  }
  slot.put(*this, values);
  slot.set = true;
}

void Weights::CheckComplete() const {
  std::string missing;
  int count = 0;
  for (const auto& [name, slot] : slots_) {
    if (slot->set) continue;
    if (++count <= 8) missing += (missing.empty() ? "" : ", ") + name;
  }
  if (count > 0) {
    throw UserError("weights: " + std::to_string(count) + " tensors were never given: " + missing +
                    (count > 8 ? ", ..." : ""));
  }
}

Weights Weights::Load(const std::string& model_dir, const ModelConfig& config) {
  Weights weights(config);
  ReadCheckpoint(model_dir, config, [&](const TensorSpec& spec, std::span<const float> values) {
    weights.Set(spec.name, values);
  });
  weights.CheckComplete();
  return weights;
}

}  // namespace temper::engine
