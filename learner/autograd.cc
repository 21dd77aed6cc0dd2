#include "learner/autograd.h"

#include <stdexcept>

namespace temper::learner {

namespace {

using torch::autograd::AutogradContext;

/// Autograd takes only defined tensors; an op's optional inputs keep their place here.
Tensors Expand(const std::vector<bool>& present, const Tensors& defined) {
  Tensors all(present.size());
  for (std::size_t i = 0, j = 0; i < present.size(); ++i) {
    if (present[i]) all[i] = defined[j++];
  }
  return all;
}

struct KernelFunction : torch::autograd::Function<KernelFunction> {
  // A TensorList, because a std::vector is no tensor argument to autograd.
  static Tensors forward(AutogradContext* ctx, c10::intrusive_ptr<Op> op, torch::TensorList list) {
    const Tensors in = list.vec();
    Tensors out = op->Forward(Expand(op->present, in));
    ctx->save_for_backward(in);
    ctx->saved_data["op"] = torch::IValue::make_capsule(std::move(op));
    return out;
  }

  static Tensors backward(AutogradContext* ctx, Tensors grad) {
    const auto op = c10::static_intrusive_pointer_cast<Op>(ctx->saved_data["op"].toCapsule());
    const Tensors in = Expand(op->present, ctx->get_saved_variables());
    std::vector<bool> needs;
    for (const torch::Tensor& t : in) needs.push_back(t.defined() && t.requires_grad());
    const Tensors found = op->Backward(in, grad, needs);
    Tensors out(1);  // the op itself has no gradient
    for (std::size_t i = 0; i < in.size(); ++i) {
      if (op->present[i]) out.push_back(needs[i] ? found[i] : torch::Tensor());
    }
    return out;
  }
};

using Rerun = std::function<torch::Tensor(const torch::Tensor& x, bool first)>;

struct Stretch : torch::CustomClassHolder {
  explicit Stretch(Rerun r) : run(std::move(r)) {}
  Rerun run;
};

struct AgainFunction : torch::autograd::Function<AgainFunction> {
  static torch::Tensor forward(AutogradContext* ctx, c10::intrusive_ptr<Stretch> stretch,
                               const torch::Tensor& x) {
    torch::Tensor y = stretch->run(x, true);  // autograd is off in here
    ctx->save_for_backward({x});
    ctx->saved_data["stretch"] = torch::IValue::make_capsule(std::move(stretch));
    return y;
  }

  static Tensors backward(AutogradContext* ctx, Tensors grad) {
    const auto stretch =
        c10::static_intrusive_pointer_cast<Stretch>(ctx->saved_data["stretch"].toCapsule());
    torch::AutoGradMode enable(true);
    const torch::Tensor x = ctx->get_saved_variables()[0].detach().requires_grad_(true);
    torch::autograd::backward({stretch->run(x, false)}, {grad[0]});
    return {torch::Tensor(), x.grad()};  // the stretch itself has no gradient
  }
};

}  // namespace

Tensors Op::Backward(const Tensors& in, const Tensors& grad, const std::vector<bool>& needs) {
  torch::AutoGradMode enable(true);
  Tensors leaves, wanted;
  for (std::size_t i = 0; i < in.size(); ++i) {
    leaves.push_back(in[i].defined() ? in[i].detach() : torch::Tensor());
    if (needs[i]) wanted.push_back(leaves[i].requires_grad_(true));
  }
  const Tensors out = Plain(leaves);
  Tensors from, with;
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (!grad[i].defined() || !out[i].requires_grad()) continue;
    from.push_back(out[i]);
    with.push_back(grad[i]);
  }
  Tensors result(in.size());
  if (from.empty() || wanted.empty()) return result;
  const Tensors found =
      torch::autograd::grad(from, wanted, with, /*retain_graph=*/false, /*create_graph=*/false,
                            /*allow_unused=*/true);
  for (std::size_t i = 0, j = 0; i < in.size(); ++i) {
    if (needs[i]) result[i] = found[j++];
  }
  return result;
}

Tensors Apply(c10::intrusive_ptr<Op> op, const Tensors& in, bool plain) {
  if (plain) return op->Plain(in);
  Tensors defined;
  op->present.clear();
  for (const torch::Tensor& t : in) {
    op->present.push_back(t.defined());
    if (t.defined()) defined.push_back(t);
  }
  return KernelFunction::apply(std::move(op), torch::TensorList(defined));
}

torch::Tensor ApplyAgain(Rerun run, const torch::Tensor& x) {
  return AgainFunction::apply(c10::make_intrusive<Stretch>(std::move(run)), x);
}

}  // namespace temper::learner
