#include "learner/policy.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "kernels/fp8.h"
#include "kernels/ops.h"
#include "kernels/sampling.h"
#include "learner/block.h"
#include "learner/core/gradients.h"
#include "learner/core/mtp_rows.h"

namespace temper::learner {

namespace {

constexpr float kLowRankEps = 1e-6f;  // of q_a_layernorm: its class default, not rms_norm_eps

std::string Prefix(int layer) { return "model.layers." + std::to_string(layer) + "."; }

/// In FP32, one addition an element, as the engine's.
torch::Tensor Biased(const torch::Tensor& y, const torch::Tensor& bias) {
  return bias.defined() ? y + bias : y;
}

}  // namespace

Policy::Policy(const engine::ModelConfig& config, const Options& options)
    : options_(options),
      parameters_(config, options.gradients, options.lora.r == 0, options.shard),
      lora_(options.gradients && options.lora.r > 0
                ? std::make_unique<Lora>(options.lora, parameters_, options.shard)
                : nullptr),
      weights_(config, options.numerics),
      published_(parameters_, weights_),
      pool_(options.threads),
      device_(MakeDevice(options.device, weights_)) {
  if (device_) {
    const auto floats = torch::TensorOptions().device(device_->place());
    values_ = torch::zeros({parameters_.size()}, floats);
    if (options.gradients) gradients_ = torch::zeros({parameters_.size()}, floats);
  }
  MakeLeaves();
}

void Policy::Upload() {
  if (!device_ || !std::exchange(changed_, false)) return;
  torch::NoGradGuard constant;
  values_.copy_(torch::from_blob(published_.values(), {parameters_.size()}));
  device_->Update();
}

void Policy::CollectGradients() {
  if (!gradients_.defined()) return;
  torch::NoGradGuard constant;
  torch::from_blob(parameters_.gradients(), {parameters_.size()}).add_(gradients_.cpu());
  gradients_.zero_();
}

void Policy::BeginAdapters(std::uint64_t seed) {
  lora_->Begin(parameters_, options_.lora.adapter, seed);
  // New ones add nothing: the bytes that were loaded stay.
  if (!options_.lora.adapter.empty()) Refresh();
}

void Policy::Refresh(std::span<const std::size_t> changed) {
  changed_ = true;
  ForRows(pool_, std::int64_t(changed.size()), 1,
          [&](std::int64_t begin, std::int64_t) { published_.Round(changed[std::size_t(begin)]); });
}

void Policy::Refresh() {
  changed_ = true;
  if (lora_) {
    lora_->Merge(parameters_, pool_);
    return Refresh(lora_->entries());
  }
  const auto& entries = parameters_.entries();
  ForRows(pool_, std::int64_t(entries.size()), 1,
          [&](std::int64_t begin, std::int64_t) { published_.Round(std::size_t(begin)); });
}

void Policy::Take(std::size_t entry, const engine::TensorData& data, bool masters) {
  changed_ = true;
  const Parameters::Entry& e = parameters_.entries()[entry];
  const std::span<float> master = parameters_.MutableValue(e);
  if (masters && data.codes.empty()) {
    std::copy(data.values.begin(), data.values.end(), master.begin());
  } else if (masters) {
    kernels::ThreadPool one(1);
    const int n = int(e.spec.shape[0]), k = int(e.spec.shape[1]);
    kernels::DequantizeWeight(data.codes.data(), k, n, k, data.scales.data(), master.data(), k,
                              one);
  }
  published_.Take(entry, data);
}

void Policy::Load(const std::string& model_dir, bool masters) {
  std::size_t entry = 0;
  engine::ReadCheckpoint(model_dir, config(),
                         [&](const engine::TensorSpec&, const engine::TensorData& data) {
                           Take(entry++, data, masters);
                         });
}

void Policy::Begin(const std::string& model_dir, const engine::ModelConfig& base,
                   std::uint64_t seed) {
  if (config().scalar_head == base.scalar_head) return Load(model_dir);
  engine::ReadCheckpoint(model_dir, base,
                         [&](const engine::TensorSpec& spec, const engine::TensorData& data) {
                           if (parameters_.Has(spec.name))
                             Take(parameters_.Index(spec.name), data, /*masters=*/true);
                         });
  const std::size_t head = parameters_.Index("score.weight");
  const double range = config().raw.value("initializer_range", 0.02);
  const std::span<float> value = parameters_.MutableValue(parameters_.entries()[head]);
  for (std::size_t i = 0; i < value.size(); ++i) {
    // Box and Muller.
    const auto uniform = [&](std::uint32_t which) {
      return double(kernels::SampleUniform(seed, i, which, 0));
    };
    const double radius = std::sqrt(-2 * std::log(1 - uniform(0)));
    value[i] = float(range * radius * std::cos(2 * M_PI * uniform(1)));
  }
  published_.Round(head);
}

torch::Tensor Policy::Leaf(const std::string& name, std::vector<std::int64_t> shape) {
  const Parameters::Entry& entry = parameters_.Find(name);
  if (shape.empty()) shape = entry.spec.shape;
  const std::int64_t count =
      std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
  const auto part = [&](const torch::Tensor& flat, float* host) {
    if (!flat.defined()) return torch::from_blob(host + entry.offset, shape, torch::kFloat32);
    return flat.narrow(0, entry.offset, count).view(shape).detach();
  };
  torch::Tensor leaf = part(values_, published_.values());
  if (options_.gradients && Trains(entry.offset, count)) {
    leaf.set_requires_grad(true);
    // Defined from the start: autograd then adds in place, into the flat buffer.
    leaf.mutable_grad() = part(gradients_, parameters_.gradients());
  }
  return leaf;
}

bool Policy::Trains(std::int64_t offset, std::int64_t count) const {
  if (!lora_) return true;
  const auto& entries = parameters_.entries();
  const std::vector<std::size_t>& changed = lora_->entries();
  return std::any_of(changed.begin(), changed.end(), [&](std::size_t i) {
    return entries[i].offset >= offset && entries[i].offset < offset + count;
  });
}

void Policy::MakeLeaves() {
  const engine::ModelConfig& c = parameters_.config();
  embedding_ = Leaf("model.embed_tokens.weight");
  norm_ = Leaf("model.norm.weight");
  head_ = c.scalar_head           ? Leaf("score.weight")
          : c.tie_word_embeddings ? embedding_
                                  : Leaf("lm_head.weight");
  const std::int64_t h = c.hidden_size;
  for (int i = 0; i < c.num_layers + c.mtp_layers; ++i) {
    const std::string p = Prefix(i), a = p + "self_attn.";
    LayerLeaves l;
    l.input_norm = Leaf(p + "input_layernorm.weight");
    if (c.q_lora_rank == 0) {
      l.q = Leaf(a + "q_proj.weight");
    } else {
      l.q_a = Leaf(a + "q_a_proj.weight");
      l.q_a_norm = Leaf(a + "q_a_layernorm.weight");
      l.q_b = Leaf(a + "q_b_proj.weight");
      if (c.attention_bias) l.q_a_bias = Leaf(a + "q_a_proj.bias");
    }
    l.kv_a = Leaf(a + "kv_a_proj_with_mqa.weight");
    l.kv_a_norm = Leaf(a + "kv_a_layernorm.weight");
    l.kv_b = Leaf(a + "kv_b_proj.weight");
    l.o = Leaf(a + "o_proj.weight");
    if (c.attention_bias) {
      l.kv_a_bias = Leaf(a + "kv_a_proj_with_mqa.bias");
      l.o_bias = Leaf(a + "o_proj.bias");
    }
    l.post_norm = Leaf(p + "post_attention_layernorm.weight");
    if (c.IsMoe(i)) {
      MakeMoeLeaves(l, p + "mlp.");
    } else {
      l.gate_up = Leaf(p + "mlp.gate_proj.weight", {2 * c.intermediate_size, h});
      l.down = Leaf(p + "mlp.down_proj.weight");
    }
    if (i >= c.num_layers) {
      l.enorm = Leaf(p + "enorm.weight");
      l.hnorm = Leaf(p + "hnorm.weight");
      l.eh = Leaf(p + "eh_proj.weight");
      l.head_norm = Leaf(p + "shared_head.norm.weight");
    }
    leaves_.push_back(std::move(l));
  }
}

void Policy::MakeMoeLeaves(LayerLeaves& l, const std::string& prefix) {
  const engine::ModelConfig& c = parameters_.config();
  const std::int64_t h = c.hidden_size, width = c.moe_intermediate_size, expert = 3 * width * h;
  const auto offset = [&](const std::string& name) {
    return parameters_.Find(prefix + name).offset;
  };
  // The stacked leaf below stands on this order of RequiredTensors.
  for (int e = 0; e < c.experts; ++e) {
    const std::string p = "experts." + std::to_string(e) + ".";
    const std::int64_t gate = offset("experts.0.gate_proj.weight") + e * expert;
    if (offset(p + "gate_proj.weight") != gate ||
        offset(p + "up_proj.weight") != gate + width * h ||
        offset(p + "down_proj.weight") != gate + 2 * width * h) {
      throw std::logic_error("policy: experts of " + prefix +
                             " are not laid out gate, up, down one after another");
    }
  }
  l.router = Leaf(prefix + "gate.weight");
  l.experts = Leaf(prefix + "experts.0.gate_proj.weight", {c.experts, expert});
  if (c.shared_experts > 0) {
    const std::int64_t wide = width * c.shared_experts;
    l.shared_gate_up = Leaf(prefix + "shared_experts.gate_proj.weight", {2 * wide, h});
    l.shared_down = Leaf(prefix + "shared_experts.down_proj.weight");
  }
}

void Policy::GrowRopeTable(const Pack& pack) {
  const int longest = 1 + *std::max_element(pack.position.begin(), pack.position.end());
  if (longest <= rope_positions_) return;
  const engine::ModelConfig& c = config();
  rope_positions_ = std::max(256, 2 * longest);
  rope_table_.resize(std::size_t(rope_positions_) * c.qk_rope_dim);
  kernels::RopeTable(c.rope_frequencies().data(), c.qk_rope_dim, rope_positions_,
                     c.rope_amplitude(), rope_table_.data());
}

torch::Tensor Policy::RmsNorm(const OpContext& context, const torch::Tensor& x,
                              const torch::Tensor& leaf, const std::vector<float>& weight,
                              float eps) {
  return Apply(c10::make_intrusive<RmsNormOp>(context, &weight, eps), {x, leaf}, options_.plain)[0];
}

torch::Tensor Policy::Linear(const OpContext& context, const torch::Tensor& x,
                             const torch::Tensor& leaf, const engine::PackedLinear& weight,
                             const torch::Tensor& residual) {
  return Apply(c10::make_intrusive<LinearOp>(context, &weight), {x, leaf, residual},
               options_.plain)[0];
}

torch::Tensor Policy::Layer(int index, const torch::Tensor& x, const OpContext& context,
                            std::vector<Routing>* routing) {
  if (!context.recompute || !torch::GradMode::is_enabled())
    return RunLayer(index, x, context, routing);
  return ApplyAgain(
      [this, index, context, routing](const torch::Tensor& again, bool first) {
        return RunLayer(index, again, context, first ? routing : nullptr);
      },
      x);
}

torch::Tensor Policy::RunLayer(int index, const torch::Tensor& input, const OpContext& context,
                               std::vector<Routing>* routing) {
  const engine::ModelConfig& c = config();
  const engine::LayerWeights& w = weights_.layer(index);
  const LayerLeaves& l = leaves_[index];
  const torch::Tensor normed = RmsNorm(context, input, l.input_norm, w.input_norm, c.rms_norm_eps);
  torch::Tensor q;
  if (c.q_lora_rank == 0) {
    q = Linear(context, normed, l.q, w.q);
  } else {
    const torch::Tensor low =
        RmsNorm(context, Biased(Linear(context, normed, l.q_a, w.q_a), l.q_a_bias), l.q_a_norm,
                w.q_a_norm, kLowRankEps);
    q = Linear(context, low, l.q_b, w.q_b);
  }
  const torch::Tensor kv = Biased(Linear(context, normed, l.kv_a, w.kv_a), l.kv_a_bias);
  const torch::Tensor o = Apply(c10::make_intrusive<AttentionOp>(context, &w),
                                {q, kv, l.kv_a_norm, l.kv_b}, options_.plain)[0];
  const torch::Tensor x =
      c.attention_bias
          ? PlainAddBlock(context, Biased(Linear(context, o, l.o, w.o), l.o_bias), input)
          : Linear(context, o, l.o, w.o, input);
  const torch::Tensor h = RmsNorm(context, x, l.post_norm, w.post_norm, c.rms_norm_eps);
  if (!w.moe) {
    return Apply(c10::make_intrusive<MlpOp>(context, &w.mlp), {h, l.gate_up, l.down, x},
                 options_.plain)[0];
  }
  const auto op = c10::make_intrusive<MoeOp>(context, &w, c.MoeLayersBefore(index));
  const torch::Tensor y =
      Apply(op, {h, x, l.router, l.experts, l.shared_gate_up, l.shared_down}, options_.plain)[0];
  if (routing) routing->push_back(op->routing());
  return y;
}

OpContext Policy::Context(std::shared_ptr<const Pack> pack, const Request& request) {
  Upload();
  GrowRopeTable(*pack);
  OpContext context;
  context.config = &config();
  context.pool = &pool_;
  context.device = options_.plain ? nullptr : device_.get();
  context.rope_table = rope_table_.data();
  context.pack = std::move(pack);
  context.numerics = weights_.numerics();
  context.recompute = options_.recompute && torch::GradMode::is_enabled();
  context.balance = request.balance;
  context.capacity = request.capacity;
  return context;
}

torch::Tensor Policy::Hidden(const OpContext& context, std::vector<Routing>* routing) {
  torch::Tensor x = Apply(c10::make_intrusive<EmbedOp>(context, &weights_, context.pack->ids),
                          {embedding_}, options_.plain)[0];
  // With adapters the embedding is a constant, but what Backward computes again hangs on its input.
  if (torch::GradMode::is_enabled() && !x.requires_grad()) x.set_requires_grad(true);
  for (int i = 0; i < config().num_layers; ++i) x = Layer(i, x, context, routing);
  return RmsNorm(context, x, norm_, weights_.norm(), config().rms_norm_eps);
}

Policy::Scores Policy::Score(std::shared_ptr<const Pack> pack,
                             const std::vector<std::int64_t>& rows, bool gradients) {
  torch::AutoGradMode mode(gradients && options_.gradients);
  const OpContext context = Context(std::move(pack), {});
  Scores out;
  const torch::Tensor hidden = Hidden(context, &out.routing);
  const torch::Tensor ends = hidden.index_select(0, IndexFor(hidden, rows));
  out.scores = Linear(context, ends, head_, weights_.head()).squeeze(1).cpu();
  return out;
}

Policy::Result Policy::Forward(std::shared_ptr<const Pack> pack, const Targets& targets,
                               const Request& request) {
  torch::AutoGradMode mode(request.gradients && options_.gradients);
  const OpContext context = Context(std::move(pack), request);
  Result result;
  const torch::Tensor hidden = Hidden(context, &result.routing);
  const auto head = c10::make_intrusive<HeadOp>(
      context, &weights_.head(), targets, request.temperature, request.entropy, request.forms);
  const Tensors out = Apply(head, {hidden, head_}, options_.plain);
  result.logp = out[0].cpu();
  result.entropy = out[1].cpu();
  result.correct = head->correct();
  if (request.mtp && config().mtp_layers > 0)
    Mtp(context, targets, hidden.detach(), request, &result);
  return result;
}

void Policy::Mtp(const OpContext& main, const Targets& targets, torch::Tensor hidden,
                 const Request& request, Result* result) {
  const engine::ModelConfig& c = config();
  std::shared_ptr<const Pack> before = main.pack;
  for (int depth = 0; depth < c.mtp_layers; ++depth) {
    MtpRows rows = NextMtpRows(*before, depth == 0);
    OpContext context = main;
    context.balance = {};
    context.capacity = 0;
    context.pack = before = std::make_shared<const Pack>(std::move(rows.pack));
    const Targets own = MtpTargets(*main.pack, targets, *context.pack, depth);
    if (own.count() == 0) return;
    const int layer = c.num_layers + depth;
    const engine::LayerWeights& w = weights_.layer(layer);
    const LayerLeaves& l = leaves_[layer];
    const torch::Tensor e =
        Apply(c10::make_intrusive<EmbedOp>(context, &weights_, context.pack->ids),
              {embedding_.detach()}, options_.plain)[0];
    const torch::Tensor h = hidden.index_select(0, IndexFor(hidden, rows.hidden));
    const torch::Tensor pair = torch::cat({RmsNorm(context, e, l.enorm, w.enorm, c.rms_norm_eps),
                                           RmsNorm(context, h, l.hnorm, w.hnorm, c.rms_norm_eps)},
                                          1);
    const torch::Tensor z =
        Layer(layer, Linear(context, pair, l.eh, w.eh), context, &result->mtp_routing);
    hidden = RmsNorm(context, z, l.head_norm, w.head_norm, c.rms_norm_eps);
    const auto head = c10::make_intrusive<HeadOp>(context, &weights_.head(), own,
                                                  request.temperature, /*entropy=*/false);
    result->mtp_logp.push_back(Apply(head, {hidden, head_.detach()}, options_.plain)[0].cpu());
    result->mtp_correct.push_back(head->correct());
  }
}

}  // namespace temper::learner
