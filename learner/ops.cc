#include "learner/ops.h"

#include <cstring>

#include "kernels/ops.h"
#include "learner/core/gradients.h"
#include "learner/products.h"

namespace temper::learner {

namespace {

torch::Tensor Empty(std::int64_t rows, std::int64_t columns) {
  return torch::empty({rows, columns}, torch::kFloat32);
}

torch::Tensor Index(const std::vector<std::int32_t>& ids) {
  return torch::from_blob(const_cast<std::int32_t*>(ids.data()), {std::int64_t(ids.size())},
                          torch::kInt32)
      .to(torch::kInt64);
}

}  // namespace

Tensors EmbedOp::Forward(const Tensors&) {
  const std::int64_t h = context_.config->hidden_size;
  torch::Tensor x = Empty(std::int64_t(ids_.size()), h);
  float* out = x.data_ptr<float>();
  for (std::size_t t = 0; t < ids_.size(); ++t) {
    std::memcpy(out + t * h, table_->data() + ids_[t] * h, h * sizeof(float));
  }
  return {x};
}

Tensors EmbedOp::Plain(const Tensors& in) { return {in[0].index_select(0, Index(ids_))}; }

Tensors EmbedOp::Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>&) {
  const std::int64_t h = in[0].size(1);
  const torch::Tensor g = grad[0].contiguous();
  torch::Tensor d = torch::zeros_like(in[0], torch::MemoryFormat::Contiguous);
  for (std::size_t t = 0; t < ids_.size(); ++t) {
    Axpy(1.0f, g.data_ptr<float>() + t * h, h, d.data_ptr<float>() + ids_[t] * h);
  }
  return {d};
}

Tensors RmsNormOp::Forward(const Tensors& in) {
  const std::int64_t m = in[0].size(0), d = in[0].size(1);
  torch::Tensor y = Empty(m, d);
  kernels::RmsNorm(in[0].data_ptr<float>(), d, weight_->data(), eps_, int(m), int(d),
                   y.data_ptr<float>(), d, *context_.pool);
  return {y};
}

Tensors RmsNormOp::Plain(const Tensors& in) {
  return {in[0] * torch::rsqrt(in[0].square().mean(-1, true) + eps_) * in[1]};
}

Tensors RmsNormOp::Backward(const Tensors& in, const Tensors& grad,
                            const std::vector<bool>& needs) {
  const std::int64_t m = in[0].size(0), d = in[0].size(1);
  const torch::Tensor g = grad[0].contiguous();
  torch::Tensor dx = Empty(m, d), dw = needs[1] ? torch::empty({d}) : torch::Tensor();
  RmsNormGradient(in[0].data_ptr<float>(), d, in[1].data_ptr<float>(), eps_, g.data_ptr<float>(), d,
                  m, int(d), dx.data_ptr<float>(), d, needs[1] ? dw.data_ptr<float>() : nullptr,
                  *context_.pool);
  return {dx, dw};
}

Tensors LinearOp::Forward(const Tensors& in) {
  const std::int64_t m = in[0].size(0);
  const kernels::LinearWeight w = w_->view();
  torch::Tensor y = Empty(m, w.n);
  kernels::Linear(w, in[0].data_ptr<float>(), w.k, int(m), y.data_ptr<float>(), w.n,
                  *context_.pool);
  if (in[2].defined()) {
    kernels::Add(in[2].data_ptr<float>(), y.data_ptr<float>(), m * w.n, y.data_ptr<float>(),
                 *context_.pool);
  }
  return {y};
}

Tensors LinearOp::Plain(const Tensors& in) {
  torch::Tensor y = torch::mm(in[0], in[1].t());
  return {in[2].defined() ? in[2] + y : y};
}

Tensors LinearOp::Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) {
  const torch::Tensor g = grad[0].contiguous();
  return {needs[0] ? InputGradient(g, in[1], *context_.pool) : torch::Tensor(),
          WeightGradient(g, in[0], needs[1], *context_.pool),
          in[2].defined() ? g : torch::Tensor()};
}

Tensors MlpOp::Forward(const Tensors& in) {
  const std::int64_t m = in[0].size(0), h = in[0].size(1), width = w_->down.k;
  kernels::ThreadPool& pool = *context_.pool;
  gate_up_ = Empty(m, 2 * width);
  gated_ = Empty(m, width);
  torch::Tensor y = Empty(m, h);
  kernels::Linear(w_->gate_up.view(), in[0].data_ptr<float>(), h, int(m),
                  gate_up_.data_ptr<float>(), 2 * width, pool);
  kernels::SwiGlu(gate_up_.data_ptr<float>(), 2 * width, int(m), int(width),
                  gated_.data_ptr<float>(), width, pool);
  kernels::Linear(w_->down.view(), gated_.data_ptr<float>(), width, int(m), y.data_ptr<float>(), h,
                  pool);
  kernels::Add(in[3].data_ptr<float>(), y.data_ptr<float>(), m * h, y.data_ptr<float>(), pool);
  return {y};
}

Tensors MlpOp::Plain(const Tensors& in) {
  const Tensors halves = torch::mm(in[0], in[1].t()).chunk(2, 1);
  return {in[3] + torch::mm(torch::silu(halves[0]) * halves[1], in[2].t())};
}

Tensors MlpOp::Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) {
  const std::int64_t m = in[0].size(0), width = in[2].size(1);
  kernels::ThreadPool& pool = *context_.pool;
  const torch::Tensor g = grad[0].contiguous();
  const torch::Tensor d_gated = InputGradient(g, in[2], pool);
  torch::Tensor d_gate_up = Empty(m, 2 * width);
  SwiGluGradient(gate_up_.data_ptr<float>(), d_gated.data_ptr<float>(), m, int(width),
                 d_gate_up.data_ptr<float>(), pool);
  return {InputGradient(d_gate_up, in[1], pool), WeightGradient(d_gate_up, in[0], needs[1], pool),
          WeightGradient(g, gated_, needs[2], pool), g};
}

}  // namespace temper::learner
