#pragma once
// What the operations of a block share: linear layers, gated MLPs and outputs as the numeric mode
// computes them.
#include "engine/weights.h"
#include "learner/autograd.h"

namespace temper::learner {

/// y [m, N] of x [m, K]; x is quantised first where the mode and w say so. Bitwise engine::Forward.
void ModeLinear(const OpContext& context, const engine::PackedLinear& w, const float* x, int m,
                float* y, std::int64_t ldy);

/// What such a product read: x itself, or in fp8-w8a8 the values of its codes. Weight gradients
/// multiply by this; gradients pass the rounding unchanged.
torch::Tensor AsRead(const OpContext& context, const engine::PackedLinear& w,
                     const torch::Tensor& x);

/// The values of x [m, K] after QuantizeActivations() and back, by LibTorch's operations: bitwise
/// its.
torch::Tensor E4m3Blocks(const torch::Tensor& x, kernels::ScaleRecipe recipe);

/// y = residual + out, out [m, H] rounded first (in place) as the mode says.
torch::Tensor AddBlock(const OpContext& context, torch::Tensor out, const torch::Tensor& residual);

/// gate_up [m, 2I], gated [m, I] and out [m, H] of a gated MLP on x [m, H].
struct GatedMlp {
  torch::Tensor gate_up, gated, out;
};
GatedMlp RunMlp(const OpContext& context, const engine::MlpWeights& w, const torch::Tensor& x);

/// Its gradients, given that of `out`: by x, gate_up [2I, H] and down [H, I] (the latter two
/// undefined where not needed).
struct MlpGradient {
  torch::Tensor x, gate_up, down;
};
MlpGradient MlpBackward(const OpContext& context, const engine::MlpWeights& w,
                        const GatedMlp& forward, const torch::Tensor& x,
                        const torch::Tensor& gate_up, const torch::Tensor& down,
                        const torch::Tensor& g, bool needs_gate_up, bool needs_down);

/// The plain forms: straight through what the kernels round.
torch::Tensor PlainLinear(const OpContext& context, const engine::PackedLinear& w,
                          const torch::Tensor& x, const torch::Tensor& weight);
torch::Tensor PlainMlp(const OpContext& context, const engine::MlpWeights& w,
                       const torch::Tensor& x, const torch::Tensor& gate_up,
                       const torch::Tensor& down);
torch::Tensor PlainAddBlock(const OpContext& context, const torch::Tensor& out,
                            const torch::Tensor& residual);

}  // namespace temper::learner
