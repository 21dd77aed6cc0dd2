#pragma once
// Matrix products of 2-D tensors by the kernels, for the explicit backward passes.
#include "learner/autograd.h"
#include "learner/core/gemm.h"

namespace temper::learner {

/// out = the product of a and b in `form`. Rows may be strided, columns are next to each other.
inline Product ProductOf(Form form, const torch::Tensor& a, const torch::Tensor& b,
                         const torch::Tensor& out) {
  Product p;
  p.m = int(out.size(0));
  p.n = int(out.size(1));
  p.k = int(form == Form::kColumns ? a.size(0) : a.size(1));
  p.a = a.data_ptr<float>();
  p.lda = a.stride(0);
  p.b = b.data_ptr<float>();
  p.ldb = b.stride(0);
  p.out = out.data_ptr<float>();
  p.ldo = out.stride(0);
  return p;
}

/// g [m, n] w [n, k].
inline torch::Tensor InputGradient(const torch::Tensor& g, const torch::Tensor& w,
                                   kernels::ThreadPool& pool) {
  torch::Tensor out = torch::empty({g.size(0), w.size(1)}, torch::kFloat32);
  Multiply(Form::kRows, ProductOf(Form::kRows, g, w, out), pool);
  return out;
}

/// g^T x: [n, k] of g [m, n] and x [m, k]. Undefined where it is not needed.
inline torch::Tensor WeightGradient(const torch::Tensor& g, const torch::Tensor& x, bool needed,
                                    kernels::ThreadPool& pool) {
  if (!needed) return {};
  torch::Tensor out = torch::empty({g.size(1), x.size(1)}, torch::kFloat32);
  Multiply(Form::kColumns, ProductOf(Form::kColumns, g, x, out), pool);
  return out;
}

}  // namespace temper::learner
