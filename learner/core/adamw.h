#pragma once
// AdamW with decoupled weight decay, the global gradient norm and the learning-rate schedule, as
// loops over flat buffers.
#include <cstdint>
#include <span>
#include <vector>

#include "configs/config.h"

namespace temper::learner {

/// A stretch of the flat buffers that is treated alike.
struct AdamwSegment {
  std::int64_t begin = 0, end = 0;
  bool decay =
      false;  // matrices: linear layers, router, embedding, head. Norms and biases don't decay
  bool trained =
      false;  // false: neither decay nor moments move it (router bias; an untrained MTP layer)
};

struct AdamwStep {
  std::int64_t number = 1;  // from 1: bias correction
  double learning_rate = 0;
  double gradient_scale = 1;  // clipping, applied to the gradient first
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1;
};

/// g = grad * gradient_scale; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
/// p = p (1 - lr wd) - lr (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + eps). FP32 elements,
/// coefficients rounded from double. Source Loshchilov and Hutter (arXiv 1711.05101);
/// torch.optim.AdamW.
void Adamw(std::span<const AdamwSegment> segments, const AdamwStep& step, const float* grad,
           float* value, float* moment1, float* moment2);

/// sqrt of the sum of squares over the trained segments: 16 strided lanes in double, chunks of 4096
/// ascending. The same bits for any number of threads.
double GradientNorm(std::span<const AdamwSegment> segments, const float* grad);

/// min(1, max_norm / (norm + 1e-6)); 1 where max_norm is 0. Source torch.nn.utils.clip_grad_norm_.
double ClipScale(double norm, double max_norm);

/// The rate of 1-based `step`: warm-up lr * step / (warmup_steps + 1) while step <= warmup_steps,
/// then constant, or cosine from lr at the first step after warm-up to lr * min_lr_ratio at
/// max_steps.
double LearningRate(const configs::Optimizer& config, std::int64_t step);

}  // namespace temper::learner
