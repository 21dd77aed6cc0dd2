#include "learner/core/adamw.h"

#include <algorithm>
#include <array>
#include <cmath>

#pragma GCC optimize("O3")
#pragma GCC target("avx2,fma")

namespace temper::learner {

void Adamw(std::span<const AdamwSegment> segments, const AdamwStep& step, const float* grad,
           float* value, float* moment1, float* moment2) {
  const double correction1 = 1 - std::pow(step.beta1, double(step.number));
  const double correction2 = 1 - std::pow(step.beta2, double(step.number));
  const float scale = float(step.gradient_scale);
  const float b1 = float(step.beta1), c1 = float(1 - step.beta1);
  const float b2 = float(step.beta2), c2 = float(1 - step.beta2);
  const float rate = float(step.learning_rate / correction1);
  const float inverse2 = float(1 / correction2);
  const float epsilon = float(step.epsilon);
  for (const AdamwSegment& segment : segments) {
    if (!segment.trained) continue;
    const float keep = segment.decay ? float(1 - step.learning_rate * step.weight_decay) : 1.0f;
    for (std::int64_t i = segment.begin; i < segment.end; ++i) {
      const float g = grad[i] * scale;
      const float m = b1 * moment1[i] + c1 * g;
      const float v = b2 * moment2[i] + c2 * (g * g);
      moment1[i] = m;
      moment2[i] = v;
      value[i] = value[i] * keep - rate * m / (std::sqrt(v * inverse2) + epsilon);
    }
  }
}

double GradientNorm(std::span<const AdamwSegment> segments, const float* grad) {
  constexpr std::int64_t kChunk = 4096;
  constexpr int kLanes = 16;
  double total = 0;
  for (const AdamwSegment& segment : segments) {
    if (!segment.trained) continue;
    for (std::int64_t begin = segment.begin; begin < segment.end; begin += kChunk) {
      const std::int64_t end = std::min(begin + kChunk, segment.end);
      std::array<double, kLanes> lane{};
      std::int64_t i = begin;
      for (; i + kLanes <= end; i += kLanes) {
        for (int j = 0; j < kLanes; ++j) lane[j] += double(grad[i + j]) * double(grad[i + j]);
      }
      for (int j = 0; i + j < end; ++j) lane[j] += double(grad[i + j]) * double(grad[i + j]);
      double sum = 0;
      for (double x : lane) sum += x;
      total += sum;
    }
  }
  return std::sqrt(total);
}

double ClipScale(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

double LearningRate(const configs::Optimizer& config, std::int64_t step) {
  if (step <= config.warmup_steps)
    return config.learning_rate * double(step) / (config.warmup_steps + 1);
  if (config.lr_scheduler_type != "cosine") return config.learning_rate;
  const double whole = std::max<double>(1, config.max_steps - config.warmup_steps - 1);
  const double done = std::min(1.0, double(step - config.warmup_steps - 1) / whole);
  const double floor = config.min_lr_ratio;
  return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + std::cos(M_PI * done)));
}

}  // namespace temper::learner
