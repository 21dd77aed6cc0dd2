// Mixture of experts: tokens sorted by expert, each expert one contiguous block forward and
// backward.
#include <algorithm>
#include <cstring>

#include "kernels/ops.h"
#include "kernels/router.h"
#include "learner/core/gradients.h"
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

torch::Tensor SwiGluBackward(const torch::Tensor& gate_up, const torch::Tensor& d_gated,
                             kernels::ThreadPool& pool) {
  torch::Tensor out = torch::empty_like(gate_up);
  SwiGluGradient(gate_up.data_ptr<float>(), d_gated.data_ptr<float>(), d_gated.size(0),
                 int(d_gated.size(1)), out.data_ptr<float>(), pool);
  return out;
}

}  // namespace

void MoeOp::Choose(const float* logits, int m) {
  const engine::ModelConfig& c = *context_.config;
  const std::int64_t pairs = std::int64_t(m) * c.top_k;
  routing_.ids.resize(pairs);
  weight_.resize(pairs);
  kernels::Route(logits, c.experts, w_->router_bias.data(), c.router_shape(), m, nullptr,
                 routing_.ids.data(), weight_.data(), *context_.pool);
  routing_.loads.assign(c.experts, 0);
  for (std::int32_t e : routing_.ids) ++routing_.loads[e];
  begin_.assign(c.experts + 1, 0);
  for (int e = 0; e < c.experts; ++e) begin_[e + 1] = begin_[e] + routing_.loads[e];
  std::vector<std::int64_t> next(begin_.begin(), begin_.end() - 1);
  slot_.resize(pairs);
  source_.resize(pairs);
  for (std::int64_t i = 0; i < pairs; ++i) {
    slot_[i] = std::int32_t(next[routing_.ids[i]]++);
    source_[slot_[i]] = std::int32_t(i / c.top_k);
  }
}

Tensors MoeOp::Forward(const Tensors& in) {
  const engine::ModelConfig& c = *context_.config;
  kernels::ThreadPool& pool = *context_.pool;
  const int m = int(in[0].size(0)), h = c.hidden_size, k = c.top_k, width = c.moe_intermediate_size;
  const std::int64_t pairs = std::int64_t(m) * k;
  const float* x = in[0].data_ptr<float>();
  logits_ = torch::empty({m, c.experts});
  kernels::Linear(w_->router.view(), x, h, m, logits_.data_ptr<float>(), c.experts, pool);
  Choose(logits_.data_ptr<float>(), m);

  gathered_ = torch::empty({pairs, h});
  ForRows(pool, pairs, 512, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::memcpy(gathered_.data_ptr<float>() + i * h, x + std::int64_t(source_[i]) * h,
                  h * sizeof(float));
    }
  });
  gate_up_ = torch::empty({pairs, 2 * width});
  gated_ = torch::empty({pairs, width});
  expert_out_ = torch::empty({pairs, h});
  const auto run = [&](auto member, const torch::Tensor& from, const torch::Tensor& to) {
    const std::int64_t ldx = from.size(1), ldy = to.size(1);
    std::vector<kernels::LinearItem> items;
    for (int e = 0; e < c.experts; ++e) {
      items.push_back({(w_->experts[e].*member).view(), from.data_ptr<float>() + begin_[e] * ldx,
                       ldx, int(begin_[e + 1] - begin_[e]), to.data_ptr<float>() + begin_[e] * ldy,
                       ldy});
    }
    kernels::LinearMany(items.data(), c.experts, pool);
  };
  run(&engine::MlpWeights::gate_up, gathered_, gate_up_);
  kernels::SwiGlu(gate_up_.data_ptr<float>(), 2 * width, int(pairs), width,
                  gated_.data_ptr<float>(), width, pool);
  run(&engine::MlpWeights::down, gated_, expert_out_);

  torch::Tensor shared;
  if (in[4].defined()) {
    const std::int64_t wide = w_->shared.down.k;
    shared_gate_up_ = torch::empty({m, 2 * wide});
    shared_gated_ = torch::empty({m, wide});
    shared = torch::empty({m, h});
    kernels::Linear(w_->shared.gate_up.view(), x, h, m, shared_gate_up_.data_ptr<float>(), 2 * wide,
                    pool);
    kernels::SwiGlu(shared_gate_up_.data_ptr<float>(), 2 * wide, m, int(wide),
                    shared_gated_.data_ptr<float>(), wide, pool);
    kernels::Linear(w_->shared.down.view(), shared_gated_.data_ptr<float>(), wide, m,
                    shared.data_ptr<float>(), h, pool);
  }
  torch::Tensor y = torch::empty({m, h});
  kernels::CombineExperts(expert_out_.data_ptr<float>(), h, slot_.data(), weight_.data(), k,
                          shared.defined() ? shared.data_ptr<float>() : nullptr, h,
                          in[1].data_ptr<float>(), h, m, h, y.data_ptr<float>(), h, pool);
  return {y};
}

Tensors MoeOp::Plain(const Tensors& in) {
  const engine::ModelConfig& c = *context_.config;
  const std::int64_t m = in[0].size(0), k = c.top_k, width = c.moe_intermediate_size;
  const torch::Tensor logits = torch::mm(in[0], in[2].t());
  if (routing_.ids.empty()) Choose(logits.contiguous().data_ptr<float>(), int(m));
  const torch::Tensor ids =
      torch::tensor(std::vector<std::int64_t>(routing_.ids.begin(), routing_.ids.end()))
          .view({m, k});
  const torch::Tensor scores =
      c.has_router_bias() ? torch::sigmoid(logits) : torch::softmax(logits, 1);
  torch::Tensor weight = scores.gather(1, ids);
  if (c.norm_topk_prob) weight = weight / (weight.sum(1, true) + kRouterEps);
  weight = weight * c.routed_scaling_factor;

  const torch::Tensor source =
      torch::tensor(std::vector<std::int64_t>(source_.begin(), source_.end()));
  const torch::Tensor slot = torch::tensor(std::vector<std::int64_t>(slot_.begin(), slot_.end()));
  const torch::Tensor x = in[0].index_select(0, source);
  Tensors parts;
  for (int e = 0; e < c.experts; ++e) {
    const Tensors halves = torch::mm(x.narrow(0, begin_[e], begin_[e + 1] - begin_[e]),
                                     GateUp(in[3], e, width, c.hidden_size).t())
                               .chunk(2, 1);
    parts.push_back(
        torch::mm(torch::silu(halves[0]) * halves[1], Down(in[3], e, width, c.hidden_size).t()));
  }
  const torch::Tensor out = torch::cat(parts).index_select(0, slot).view({m, k, c.hidden_size});
  torch::Tensor sum = (out * weight.unsqueeze(2)).sum(1);
  if (in[4].defined()) {
    const Tensors halves = torch::mm(in[0], in[4].t()).chunk(2, 1);
    sum = sum + torch::mm(torch::silu(halves[0]) * halves[1], in[5].t());
  }
  return {in[1] + sum};
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

Tensors MoeOp::Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) {
  const engine::ModelConfig& c = *context_.config;
  kernels::ThreadPool& pool = *context_.pool;
  const std::int64_t m = in[0].size(0), h = c.hidden_size, k = c.top_k,
                     width = c.moe_intermediate_size;
  const std::int64_t pairs = m * k;
  const torch::Tensor g = grad[0].contiguous();

  torch::Tensor d_out = torch::empty({pairs, h});
  std::vector<float> d_weight(pairs);
  CombineGradient(expert_out_.data_ptr<float>(), g.data_ptr<float>(), slot_.data(), weight_.data(),
                  m, int(k), int(h), d_out.data_ptr<float>(), d_weight.data(), pool);

  torch::Tensor d_gated = torch::empty({pairs, width}), d_gathered = torch::empty({pairs, h});
  torch::Tensor d_experts = needs[3] ? torch::empty_like(in[3]) : torch::Tensor();
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
  all(Form::kRows, of(d_out), down(in[3]), of(d_gated));
  if (needs[3]) all(Form::kColumns, of(d_out), of(gated_), down(d_experts));
  const torch::Tensor d_gate_up = SwiGluBackward(gate_up_, d_gated, pool);
  all(Form::kRows, of(d_gate_up), gate_up(in[3]), of(d_gathered));
  if (needs[3]) all(Form::kColumns, of(d_gate_up), of(gathered_), gate_up(d_experts));

  torch::Tensor d_logits = torch::zeros({m, c.experts});
  GateGradient(d_weight, d_logits.data_ptr<float>());
  torch::Tensor d_x = InputGradient(d_logits, in[2], pool), d_shared;
  Tensors result(6);
  result[2] = WeightGradient(d_logits, in[0], needs[2], pool);
  if (in[4].defined()) {
    const torch::Tensor d = SwiGluBackward(shared_gate_up_, InputGradient(g, in[5], pool), pool);
    d_shared = InputGradient(d, in[4], pool);
    result[4] = WeightGradient(d, in[0], needs[4], pool);
    result[5] = WeightGradient(g, shared_gated_, needs[5], pool);
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
