// Mixture of experts: tokens sorted by expert, each expert one contiguous block forward and
// backward.
#include <algorithm>
#include <cstring>

#include "kernels/fp8.h"
#include "kernels/ops.h"
#include "kernels/router.h"
#include "learner/core/capacity.h"
#include "learner/core/gradients.h"
#include "learner/device.h"
#include "learner/ops.h"
#include "learner/products.h"

namespace temper::learner {

namespace {

constexpr float kRouterEps = 1e-20f;  // in the sum of the chosen gates (engine-facts D7)

/// An expert's matrices inside its row of the stacked weights: gate and up [2I, H], then down [H,
/// I].
torch::Tensor GateUp(const torch::Tensor& experts, int e, std::int64_t width, std::int64_t h) {
  return experts.select(0, e).narrow(0, 0, 2 * width * h).view({2 * width, h});
}
torch::Tensor Down(const torch::Tensor& experts, int e, std::int64_t width, std::int64_t h) {
  return experts.select(0, e).narrow(0, 2 * width * h, width * h).view({h, width});
}

}  // namespace

std::vector<std::int32_t> MoeOp::Replayed(int m) const {
  const std::vector<std::uint16_t>& all = context_.pack->experts;
  std::vector<std::int32_t> forced;
  if (all.empty()) return forced;
  const std::size_t k = std::size_t(context_.config->top_k);
  const std::size_t stride = std::size_t(context_.config->moe_layers()) * k;
  forced.reserve(std::size_t(m) * k);
  for (int t = 0; t < m; ++t) {
    const auto first = all.begin() + std::ptrdiff_t(std::size_t(t) * stride + layer_ * k);
    forced.insert(forced.end(), first, first + std::ptrdiff_t(k));
  }
  return forced;
}

void MoeOp::Choose(const torch::Tensor& logits) {
  const engine::ModelConfig& c = *context_.config;
  const int m = int(logits.size(0));
  const std::int64_t pairs = std::int64_t(m) * c.top_k;
  routing_.ids.resize(pairs);
  weight_.resize(pairs);
  const std::vector<std::int32_t> forced = Replayed(m);
  const bool read = !context_.device || context_.capacity > 0 || context_.balance.wanted();
  logits_ = read ? logits.detach().cpu().contiguous() : torch::Tensor();
  if (context_.device) {
    context_.device->Route(*w_, logits, forced, &routing_.ids, &weight_);
  } else {
    kernels::Route(logits_.data_ptr<float>(), c.experts, w_->router_bias.data(), c.router_shape(),
                   m, forced.empty() ? nullptr : forced.data(), routing_.ids.data(), weight_.data(),
                   *context_.pool);
  }
  routing_.loads.assign(c.experts, 0);
  for (std::int32_t e : routing_.ids) ++routing_.loads[e];
  if (context_.capacity > 0) {
    dropped_ = PastCapacity(context_.capacity, c.router_shape(), *context_.pack,
                            routing_.ids.data(), logits_.data_ptr<float>());
    routing_.dropped = std::count(dropped_.begin(), dropped_.end(), 1);
  }
  if (context_.balance.wanted()) {
    routing_.balance_loss =
        AddBalanceGradient(context_.balance, c.router_shape(), *context_.pack, routing_.ids.data(),
                           logits_.data_ptr<float>(), nullptr);
  }
  Sort();
}

void MoeOp::Sort() {
  const engine::ModelConfig& c = *context_.config;
  const std::int64_t pairs = std::int64_t(routing_.ids.size());
  std::vector<std::int64_t> loads = routing_.loads;
  for (std::size_t i = 0; i < dropped_.size(); ++i) loads[routing_.ids[i]] -= dropped_[i];
  begin_.assign(c.experts + 1, 0);
  for (int e = 0; e < c.experts; ++e) begin_[e + 1] = begin_[e] + loads[e];
  std::vector<std::int64_t> next = begin_;
  slot_.resize(pairs);
  source_.resize(pairs);
  for (std::int64_t i = 0; i < pairs; ++i) {
    const bool dropped = !dropped_.empty() && dropped_[i];
    if (dropped) weight_[i] = 0;
    slot_[i] = std::int32_t(next[dropped ? c.experts : routing_.ids[i]]++);
    source_[slot_[i]] = std::int32_t(i / c.top_k);
  }
}

void MoeOp::ClearDropped(torch::Tensor* rows) const {
  if (routing_.dropped > 0) rows->narrow(0, begin_.back(), routing_.dropped).zero_();
}

void MoeOp::Gather(const float* x) {
  const std::int64_t pairs = std::int64_t(source_.size()), h = context_.config->hidden_size;
  gathered_ = torch::empty({pairs, h});
  ForRows(*context_.pool, pairs, 512, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::memcpy(gathered_.data_ptr<float>() + i * h, x + std::int64_t(source_[i]) * h,
                  h * sizeof(float));
    }
  });
}

void MoeOp::RunExperts(engine::PackedLinear engine::MlpWeights::*member, const torch::Tensor& from,
                       float* to, std::int64_t ldo) const {
  const std::int64_t pairs = from.size(0), k = from.size(1);
  const std::int64_t blocks = (k + kernels::kBlock - 1) / kernels::kBlock;
  const float* x = from.data_ptr<float>();
  torch::Tensor values, scales;
  if (context_.numerics.quantizes_inputs()) {
    values = torch::empty({pairs, k});
    scales = torch::empty({pairs, blocks});
    kernels::QuantizeActivations(x, k, int(pairs), int(k), context_.numerics.scale,
                                 values.data_ptr<float>(), k, scales.data_ptr<float>(),
                                 *context_.pool);
    x = values.data_ptr<float>();
  }
  std::vector<kernels::LinearItem> items;
  for (int e = 0; e < context_.config->experts; ++e) {
    const std::int64_t first = begin_[e];
    kernels::LinearItem item{(w_->experts[e].*member).view(), x + first * k,    k,
                             int(begin_[e + 1] - first),      to + first * ldo, ldo};
    if (scales.defined()) {
      item.x_scale = scales.data_ptr<float>() + first * blocks;
      item.ld_x_scale = blocks;
    }
    if (item.m > 0) items.push_back(item);
  }
  kernels::LinearMany(items.data(), int(items.size()), *context_.pool);
}

Tensors MoeOp::DeviceForward(const Tensors& in) {
  const Device& device = *context_.device;
  Choose(device.RouterLogits(*w_, in[0]));
  const torch::Tensor sorted = in[0].index_select(0, IndexFor(in[0], source_));
  torch::Tensor shared;
  if (in[4].defined()) shared = device.Mlp(w_->shared, in[0]);
  const torch::Tensor out = device.Experts(*w_, sorted, begin_);
  return {device.AddBlock(device.Combine(out, slot_, weight_, shared), in[1])};
}

Tensors MoeOp::Forward(const Tensors& in) {
  if (context_.device) return DeviceForward(in);
  const engine::ModelConfig& c = *context_.config;
  kernels::ThreadPool& pool = *context_.pool;
  const int m = int(in[0].size(0)), h = c.hidden_size, k = c.top_k, width = c.moe_intermediate_size;
  const std::int64_t pairs = std::int64_t(m) * k;
  const float* x = in[0].data_ptr<float>();
  const torch::Tensor logits = torch::empty({m, c.experts});
  ModeLinear(context_, w_->router, x, m, logits.data_ptr<float>(), c.experts);
  Choose(logits);

  Gather(x);
  gate_up_ = torch::empty({pairs, 2 * width});
  gated_ = torch::empty({pairs, width});
  expert_out_ = torch::empty({pairs, h});
  ClearDropped(&gate_up_);
  ClearDropped(&expert_out_);
  float* gate_up = gate_up_.data_ptr<float>();
  RunExperts(&engine::MlpWeights::gate_up, gathered_, gate_up, 2 * width);
  if (w_->experts[0].up.n > 0)
    RunExperts(&engine::MlpWeights::up, gathered_, gate_up + width, 2 * width);
  kernels::SwiGlu(gate_up, 2 * width, int(pairs), width, gated_.data_ptr<float>(), width, pool);
  RunExperts(&engine::MlpWeights::down, gated_, expert_out_.data_ptr<float>(), h);

  torch::Tensor shared;
  if (in[4].defined()) {
    shared_ = RunMlp(context_, w_->shared, in[0]);
    shared = std::move(shared_.out);
  }
  const bool rounds = context_.numerics.rounds();
  torch::Tensor y = torch::empty({m, h});
  kernels::CombineExperts(expert_out_.data_ptr<float>(), h, slot_.data(), weight_.data(), k,
                          shared.defined() ? shared.data_ptr<float>() : nullptr, h,
                          rounds ? nullptr : in[1].data_ptr<float>(), h, m, h, y.data_ptr<float>(),
                          h, pool);
  return {rounds ? AddBlock(context_, y, in[1]) : y};
}

Tensors MoeOp::Plain(const Tensors& in) {
  const engine::ModelConfig& c = *context_.config;
  const std::int64_t m = in[0].size(0), k = c.top_k, width = c.moe_intermediate_size;
  const torch::Tensor logits = torch::mm(in[0], in[2].t());
  if (routing_.ids.empty()) Choose(logits);
  const torch::Tensor ids = IndexFor(logits, routing_.ids).view({m, k});
  const torch::Tensor scores =
      c.has_router_bias() ? torch::sigmoid(logits) : torch::softmax(logits, 1);
  torch::Tensor weight = scores.gather(1, ids);
  if (c.norm_topk_prob) weight = weight / (weight.sum(1, true) + kRouterEps);
  weight = weight * c.routed_scaling_factor;
  if (!dropped_.empty()) {
    const torch::Tensor dropped = IndexFor(logits, dropped_).view({m, k});
    weight = weight.masked_fill(dropped.to(torch::kBool), 0);
  }

  const torch::Tensor slot = IndexFor(logits, slot_);
  const torch::Tensor x = in[0].index_select(0, IndexFor(logits, source_));
  Tensors parts;
  for (int e = 0; e < c.experts; ++e) {
    parts.push_back(
        PlainMlp(context_, w_->experts[e], x.narrow(0, begin_[e], begin_[e + 1] - begin_[e]),
                 GateUp(in[3], e, width, c.hidden_size), Down(in[3], e, width, c.hidden_size)));
  }
  if (routing_.dropped > 0)
    parts.push_back(torch::zeros({routing_.dropped, c.hidden_size}, x.options()));
  const torch::Tensor out = torch::cat(parts).index_select(0, slot).view({m, k, c.hidden_size});
  torch::Tensor sum = (out * weight.unsqueeze(2)).sum(1);
  if (in[4].defined()) sum = sum + PlainMlp(context_, w_->shared, in[0], in[4], in[5]);
  return {PlainAddBlock(context_, sum, in[1])};
}

void MoeOp::GateGradient(const std::vector<float>& d_weight, float* d_logits) const {
  const engine::ModelConfig& c = *context_.config;
  const std::int64_t m = std::int64_t(routing_.ids.size()) / c.top_k, k = c.top_k;
  const float* logits = logits_.data_ptr<float>();
  ForRows(*context_.pool, m, 256, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> score(c.experts);
    for (std::int64_t t = begin; t < end; ++t) {
      kernels::RouterScores(c.router, logits + t * c.experts, c.experts, score.data());
      const std::int32_t* ids = routing_.ids.data() + t * k;
      const float* dw = d_weight.data() + t * k;
      float* out = d_logits + t * c.experts;
      // w = scale s / sum: dw/ds_i = scale (delta / sum - s / sum^2), or w = scale s
      double sum = kRouterEps, inner = 0;
      for (std::int64_t j = 0; j < k; ++j) {
        sum += score[ids[j]];
        inner += double(score[ids[j]]) * dw[j];
      }
      const auto ds = [&](std::int64_t j) {
        const double d = dw[j];
        return c.routed_scaling_factor * (c.norm_topk_prob ? d / sum - inner / (sum * sum) : d);
      };
      if (c.has_router_bias()) {  // ds_i/dx_i = s_i (1 - s_i)
        for (std::int64_t j = 0; j < k; ++j) {
          const double s = score[ids[j]];
          out[ids[j]] = float(ds(j) * s * (1 - s));
        }
        continue;
      }
      double all = 0;  // ds_i/dx_j = s_i (delta_ij - s_j)
      for (std::int64_t j = 0; j < k; ++j) all += ds(j) * score[ids[j]];
      for (int e = 0; e < c.experts; ++e) out[e] = float(-all * score[e]);
      for (std::int64_t j = 0; j < k; ++j) out[ids[j]] += float(ds(j) * score[ids[j]]);
    }
  });
}

torch::Tensor MoeOp::ExpertsBackward(const torch::Tensor& experts, const torch::Tensor& d_out,
                                     torch::Tensor* d_experts) const {
  const engine::ModelConfig& c = *context_.config;
  kernels::ThreadPool& pool = *context_.pool;
  const std::int64_t pairs = d_out.size(0), h = c.hidden_size, width = c.moe_intermediate_size;
  torch::Tensor d_gated = torch::empty({pairs, width}), d_gathered = torch::empty({pairs, h});
  ClearDropped(&d_gated);
  ClearDropped(&d_gathered);
  const auto rows = [&](const torch::Tensor& x, int e) {
    return x.narrow(0, begin_[e], begin_[e + 1] - begin_[e]);
  };
  // out = a b for each expert; an expert without a token has zeros for its weights.
  const auto all = [&](Form form, const auto& a, const auto& b, const auto& out) {
    std::vector<Product> products;
    for (int e = 0; e < c.experts; ++e) products.push_back(ProductOf(form, a(e), b(e), out(e)));
    Multiply(form, products.data(), c.experts, pool);
  };
  const auto of = [&](const torch::Tensor& x) { return [&](int e) { return rows(x, e); }; };
  const auto down = [&](const torch::Tensor& w) {
    return [&](int e) { return Down(w, e, width, h); };
  };
  const auto gate_up = [&](const torch::Tensor& w) {
    return [&](int e) { return GateUp(w, e, width, h); };
  };
  all(Form::kRows, of(d_out), down(experts), of(d_gated));
  if (d_experts->defined()) {
    const torch::Tensor read = AsRead(context_, w_->experts[0].down, gated_);
    all(Form::kColumns, of(d_out), of(read), down(*d_experts));
  }
  const torch::Tensor d_gate_up = torch::empty_like(gate_up_);
  SwiGluGradient(gate_up_.data_ptr<float>(), d_gated.data_ptr<float>(), pairs, int(width),
                 d_gate_up.data_ptr<float>(), pool);
  all(Form::kRows, of(d_gate_up), gate_up(experts), of(d_gathered));
  if (d_experts->defined()) {
    const torch::Tensor read = AsRead(context_, w_->experts[0].gate_up, gathered_);
    all(Form::kColumns, of(d_gate_up), of(read), gate_up(*d_experts));
  }
  return d_gathered;
}

Tensors MoeOp::DeviceBackward(const Tensors& in, const Tensors& grad,
                              const std::vector<bool>& needs) {
  Tensors result = Op::Backward(in, grad, needs);
  if (!context_.balance.wanted()) return result;
  const torch::Tensor own = torch::zeros_like(logits_);
  AddBalanceGradient(context_.balance, context_.config->router_shape(), *context_.pack,
                     routing_.ids.data(), logits_.data_ptr<float>(), own.data_ptr<float>());
  const torch::Tensor d = own.to(in[0].device());
  if (needs[0]) result[0] = result[0] + torch::mm(d, in[2]);
  if (needs[2]) result[2] = result[2] + torch::mm(d.t(), in[0]);
  return result;
}

Tensors MoeOp::Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) {
  if (context_.device) return DeviceBackward(in, grad, needs);
  const engine::ModelConfig& c = *context_.config;
  kernels::ThreadPool& pool = *context_.pool;
  const std::int64_t m = in[0].size(0), h = c.hidden_size, k = c.top_k;
  const torch::Tensor g = grad[0].contiguous();

  torch::Tensor d_out = torch::empty({m * k, h});
  std::vector<float> d_weight(m * k);
  CombineGradient(expert_out_.data_ptr<float>(), g.data_ptr<float>(), slot_.data(), weight_.data(),
                  m, int(k), int(h), d_out.data_ptr<float>(), d_weight.data(), pool);
  torch::Tensor d_experts = needs[3] ? torch::empty_like(in[3]) : torch::Tensor();
  const torch::Tensor d_gathered = ExpertsBackward(in[3], d_out, &d_experts);

  torch::Tensor d_logits = torch::zeros({m, c.experts});
  GateGradient(d_weight, d_logits.data_ptr<float>());
  if (context_.balance.wanted()) {
    AddBalanceGradient(context_.balance, c.router_shape(), *context_.pack, routing_.ids.data(),
                       logits_.data_ptr<float>(), d_logits.data_ptr<float>());
  }
  torch::Tensor d_x = InputGradient(d_logits, in[2], pool), d_shared;
  Tensors result(6);
  result[2] = WeightGradient(d_logits, in[0], needs[2], pool);
  if (in[4].defined()) {
    const MlpGradient d =
        MlpBackward(context_, w_->shared, shared_, in[0], in[4], in[5], g, needs[4], needs[5]);
    d_shared = d.x;
    result[4] = d.gate_up;
    result[5] = d.down;
  }
  AddSlots(d_gathered.data_ptr<float>(), slot_.data(),
           d_shared.defined() ? d_shared.data_ptr<float>() : nullptr, m, int(k), int(h),
           d_x.data_ptr<float>(), pool);
  result[0] = d_x;
  result[1] = g;
  result[3] = d_experts;
  return result;
}

}  // namespace temper::learner
