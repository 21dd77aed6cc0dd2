#include "learner/ops.h"

#include "kernels/ops.h"
#include "learner/core/gradients.h"
#include "learner/device.h"
#include "learner/products.h"

namespace temper::learner {

namespace {

torch::Tensor Empty(std::int64_t rows, std::int64_t columns) {
  return torch::empty({rows, columns}, torch::kFloat32);
}

}  // namespace

Tensors EmbedOp::Forward(const Tensors& in) {
  if (context_.device) return Plain(in);  // the table holds the values that the mode rounded
  const std::int64_t h = context_.config->hidden_size;
  torch::Tensor x = Empty(std::int64_t(ids_.size()), h);
  float* out = x.data_ptr<float>();
  for (std::size_t t = 0; t < ids_.size(); ++t) weights_->Embed(ids_[t], out + t * h);
  return {x};
}

Tensors EmbedOp::Plain(const Tensors& in) { return {in[0].index_select(0, IndexFor(in[0], ids_))}; }

Tensors EmbedOp::Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) {
  if (context_.device) return Op::Backward(in, grad, needs);
  const std::int64_t h = in[0].size(1);
  const torch::Tensor g = grad[0].contiguous();
  torch::Tensor d = torch::zeros_like(in[0], torch::MemoryFormat::Contiguous);
  for (std::size_t t = 0; t < ids_.size(); ++t) {
    Axpy(1.0f, g.data_ptr<float>() + t * h, h, d.data_ptr<float>() + ids_[t] * h);
  }
  return {d};
}

Tensors RmsNormOp::Forward(const Tensors& in) {
  if (context_.device) return {context_.device->RmsNorm(in[0], in[1], eps_)};
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
  if (context_.device) return Op::Backward(in, grad, needs);
  const std::int64_t m = in[0].size(0), d = in[0].size(1);
  const torch::Tensor g = grad[0].contiguous();
  torch::Tensor dx = Empty(m, d), dw = needs[1] ? torch::empty({d}) : torch::Tensor();
  RmsNormGradient(in[0].data_ptr<float>(), d, in[1].data_ptr<float>(), eps_, g.data_ptr<float>(), d,
                  m, int(d), dx.data_ptr<float>(), d, needs[1] ? dw.data_ptr<float>() : nullptr,
                  *context_.pool);
  return {dx, dw};
}

Tensors LinearOp::Forward(const Tensors& in) {
  if (context_.device) {
    const torch::Tensor y = context_.device->Linear(*w_, in[0]);
    return {in[2].defined() ? context_.device->AddBlock(y, in[2]) : y};
  }
  const std::int64_t m = in[0].size(0);
  torch::Tensor y = Empty(m, w_->n);
  ModeLinear(context_, *w_, in[0].data_ptr<float>(), int(m), y.data_ptr<float>(), w_->n);
  return {in[2].defined() ? AddBlock(context_, y, in[2]) : y};
}

Tensors LinearOp::Plain(const Tensors& in) {
  const torch::Tensor y = PlainLinear(context_, *w_, in[0], in[1]);
  return {in[2].defined() ? PlainAddBlock(context_, y, in[2]) : y};
}

Tensors LinearOp::Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) {
  if (context_.device) return Op::Backward(in, grad, needs);
  const torch::Tensor g = grad[0].contiguous();
  kernels::ThreadPool& pool = *context_.pool;
  torch::Tensor d_x, d_w;
  if (needs[0]) d_x = InputGradient(g, in[1], pool);
  if (needs[1]) d_w = WeightGradient(g, AsRead(context_, *w_, in[0]), true, pool);
  return {d_x, d_w, in[2].defined() ? g : torch::Tensor()};
}

Tensors MlpOp::Forward(const Tensors& in) {
  if (context_.device) return {context_.device->AddBlock(context_.device->Mlp(*w_, in[0]), in[3])};
  run_ = RunMlp(context_, *w_, in[0]);
  return {AddBlock(context_, std::move(run_.out), in[3])};
}

Tensors MlpOp::Plain(const Tensors& in) {
  return {PlainAddBlock(context_, PlainMlp(context_, *w_, in[0], in[1], in[2]), in[3])};
}

Tensors MlpOp::Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) {
  if (context_.device) return Op::Backward(in, grad, needs);
  const torch::Tensor g = grad[0].contiguous();
  const MlpGradient d =
      MlpBackward(context_, *w_, run_, in[0], in[1], in[2], g, needs[1], needs[2]);
  return {d.x, d.gate_up, d.down, g};
}

}  // namespace temper::learner
