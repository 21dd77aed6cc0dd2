#include "learner/block.h"

#include "kernels/bf16.h"
#include "kernels/ops.h"
#include "learner/core/gradients.h"
#include "learner/products.h"

namespace temper::learner {

namespace {

std::int64_t Blocks(std::int64_t n) { return (n + kernels::kBlock - 1) / kernels::kBlock; }

bool Quantizes(const OpContext& context, const engine::PackedLinear& w) {
  return context.numerics.quantizes_inputs() && w.type == kernels::WeightType::kFp8;
}

struct Codes {
  torch::Tensor values, scales;  // [m, K], [m, ceil(K / 128)]
};

Codes Quantize(const OpContext& context, const float* x, std::int64_t m, std::int64_t k) {
  Codes out{torch::empty({m, k}), torch::empty({m, Blocks(k)})};
  kernels::QuantizeActivations(x, k, int(m), int(k), context.numerics.scale,
                               out.values.data_ptr<float>(), k, out.scales.data_ptr<float>(),
                               *context.pool);
  return out;
}

/// `value` with the gradient of x; exact where they are within a factor of two (Sterbenz).
torch::Tensor Through(const torch::Tensor& x, const torch::Tensor& value) {
  return x + (value - x).detach();
}

}  // namespace

void ModeLinear(const OpContext& context, const engine::PackedLinear& w, const float* x, int m,
                float* y, std::int64_t ldy) {
  if (!Quantizes(context, w)) {
    kernels::Linear(w.view(), x, w.k, m, y, ldy, *context.pool);
    return;
  }
  const Codes codes = Quantize(context, x, m, w.k);
  const kernels::LinearItem item{w.view(), codes.values.data_ptr<float>(), w.k,        m, y,
                                 ldy,      codes.scales.data_ptr<float>(), Blocks(w.k)};
  kernels::LinearMany(&item, 1, *context.pool);
}

torch::Tensor AsRead(const OpContext& context, const engine::PackedLinear& w,
                     const torch::Tensor& x) {
  if (!Quantizes(context, w)) return x;
  if (!x.is_cpu()) return E4m3Blocks(x, context.numerics.scale);
  const std::int64_t m = x.size(0), k = x.size(1);
  const Codes codes = Quantize(context, x.data_ptr<float>(), m, k);
  float* values = codes.values.data_ptr<float>();
  const float* scales = codes.scales.data_ptr<float>();
  ForRows(*context.pool, m, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t i = 0; i < k; ++i)
        values[r * k + i] *= scales[r * Blocks(k) + i / kernels::kBlock];
    }
  });
  return codes.values;
}

torch::Tensor AddBlock(const OpContext& context, torch::Tensor out, const torch::Tensor& residual) {
  float* y = out.data_ptr<float>();
  if (context.numerics.rounds()) kernels::RoundBf16(y, out.numel(), *context.pool);
  kernels::Add(residual.data_ptr<float>(), y, out.numel(), y, *context.pool);
  return out;
}

GatedMlp RunMlp(const OpContext& context, const engine::MlpWeights& w, const torch::Tensor& x) {
  const std::int64_t m = x.size(0), width = w.down.k;
  GatedMlp run{torch::empty({m, 2 * width}), torch::empty({m, width}),
               torch::empty({m, std::int64_t(w.down.n)})};
  float* gate_up = run.gate_up.data_ptr<float>();
  const float* in = x.data_ptr<float>();
  ModeLinear(context, w.gate_up, in, int(m), gate_up, 2 * width);
  if (w.up.n > 0) ModeLinear(context, w.up, in, int(m), gate_up + width, 2 * width);
  kernels::SwiGlu(gate_up, 2 * width, int(m), int(width), run.gated.data_ptr<float>(), width,
                  *context.pool);
  ModeLinear(context, w.down, run.gated.data_ptr<float>(), int(m), run.out.data_ptr<float>(),
             w.down.n);
  return run;
}

MlpGradient MlpBackward(const OpContext& context, const engine::MlpWeights& w,
                        const GatedMlp& forward, const torch::Tensor& x,
                        const torch::Tensor& gate_up, const torch::Tensor& down,
                        const torch::Tensor& g, bool needs_gate_up, bool needs_down) {
  kernels::ThreadPool& pool = *context.pool;
  const torch::Tensor d_gated = InputGradient(g, down, pool);
  const torch::Tensor d = torch::empty_like(forward.gate_up);
  SwiGluGradient(forward.gate_up.data_ptr<float>(), d_gated.data_ptr<float>(), d_gated.size(0),
                 int(d_gated.size(1)), d.data_ptr<float>(), pool);
  MlpGradient out;
  out.x = InputGradient(d, gate_up, pool);
  if (needs_gate_up) out.gate_up = WeightGradient(d, AsRead(context, w.gate_up, x), true, pool);
  if (needs_down) out.down = WeightGradient(g, AsRead(context, w.down, forward.gated), true, pool);
  return out;
}

torch::Tensor E4m3Blocks(const torch::Tensor& x, kernels::ScaleRecipe recipe) {
  const std::int64_t m = x.size(0), k = x.size(1), blocks = Blocks(k);
  torch::Tensor padded = x;
  if (blocks * kernels::kBlock > k)
    padded = torch::cat({x, torch::zeros({m, blocks * kernels::kBlock - k}, x.options())}, 1);
  padded = padded.reshape({m, blocks, kernels::kBlock});
  torch::Tensor scale = padded.abs().amax(2, true).clamp_min(1e-12f) / kernels::kE4m3Max;
  if (recipe == kernels::ScaleRecipe::kPow2) {
    // q = f 2^e with f in [0.5, 1): 2^(e - 1) where f is 0.5, else 2^e.
    const auto [fraction, exponent] = torch::frexp(scale);
    scale = torch::ldexp(torch::ones_like(scale), exponent - (fraction == 0.5f).to(torch::kInt32));
  }
  const torch::Tensor codes =
      (padded / scale).clamp(-kernels::kE4m3Max, kernels::kE4m3Max).to(torch::kFloat8_e4m3fn);
  return (codes.to(torch::kFloat32) * scale)
      .reshape({m, blocks * kernels::kBlock})
      .narrow(1, 0, k)
      .contiguous();
}

torch::Tensor PlainLinear(const OpContext& context, const engine::PackedLinear& w,
                          const torch::Tensor& x, const torch::Tensor& weight) {
  const bool rounds = Quantizes(context, w);
  return torch::mm(rounds ? Through(x, AsRead(context, w, x.detach().contiguous())) : x,
                   weight.t());
}

torch::Tensor PlainMlp(const OpContext& context, const engine::MlpWeights& w,
                       const torch::Tensor& x, const torch::Tensor& gate_up,
                       const torch::Tensor& down) {
  const Tensors halves = PlainLinear(context, w.gate_up, x, gate_up).chunk(2, 1);
  return PlainLinear(context, w.down, torch::silu(halves[0]) * halves[1], down);
}

torch::Tensor PlainAddBlock(const OpContext& context, const torch::Tensor& out,
                            const torch::Tensor& residual) {
  if (!context.numerics.rounds()) return residual + out;
  return residual + Through(out, out.detach().to(torch::kBFloat16).to(torch::kFloat32));
}

}  // namespace temper::learner
