#include "learner/core/gradients.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/variant.h"

namespace temper::learner {

namespace {

constexpr int kLanes = 16;

float Sum(const std::array<float, kLanes>& lane) {
  float sum = 0;
  for (float x : lane) sum += x;
  return sum;
}

}  // namespace

void ForRows(kernels::ThreadPool& pool, std::int64_t rows, std::int64_t grain,
             const std::function<void(std::int64_t, std::int64_t)>& fn) {
  const std::int64_t parts = (rows + grain - 1) / grain;
  if (parts == 0) return;
  pool.Run(int(parts), [&](int i) { fn(i * grain, std::min(rows, (i + 1) * grain)); });
}

float Dot(const float* a, const float* b, std::int64_t n) {
  std::array<float, kLanes> lane{};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lane[j] += a[i + j] * b[i + j];
  }
  for (int j = 0; i + j < n; ++j) lane[j] += a[i + j] * b[i + j];
  return Sum(lane);
}

bool IsFirstLargest(const float* row, int n, int i) {
  const float value = row[i];
  int above = 0;
  for (int j = 0; j < i; ++j) above += row[j] >= value;
  for (int j = i + 1; j < n; ++j) above += row[j] > value;
  return above == 0;
}

void Axpy(float a, const float* x, std::int64_t n, float* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

void RmsNormGradient(const float* x, std::int64_t ldx, const float* weight, float eps,
                     const float* g, std::int64_t ldg, std::int64_t m, int d, float* dx,
                     std::int64_t lddx, float* dw, kernels::ThreadPool& pool) {
  // Fixed parts, so that the sum over rows has one order for any number of threads.
  constexpr std::int64_t kParts = 16;
  const std::int64_t grain = std::max<std::int64_t>(1, (m + kParts - 1) / kParts);
  std::vector<float> partial(dw ? kParts * d : 0, 0.0f);
  ForRows(pool, m, grain, [&](std::int64_t begin, std::int64_t end) {
    float* part = dw ? partial.data() + begin / grain * d : nullptr;
    std::vector<float> gw(d);
    for (std::int64_t r = begin; r < end; ++r) {
      const float* xr = x + r * ldx;
      const float* gr = g + r * ldg;
      float* out = dx + r * lddx;
      const float s = 1.0f / std::sqrt(Dot(xr, xr, d) / float(d) + eps);
      if (part) {
        for (int i = 0; i < d; ++i) part[i] += gr[i] * (xr[i] * s);
      }
      for (int i = 0; i < d; ++i) gw[i] = gr[i] * weight[i];
      const float back = s * s * s / float(d) * Dot(gw.data(), xr, d);
      for (int i = 0; i < d; ++i) out[i] = s * gw[i] - back * xr[i];
    }
  });
  if (!dw) return;
  std::fill_n(dw, d, 0.0f);
  for (std::int64_t p = 0; p < kParts; ++p) Axpy(1.0f, partial.data() + p * d, d, dw);
}

void SwiGluGradient(const float* gate_up, const float* dy, std::int64_t m, int d, float* d_gate_up,
                    kernels::ThreadPool& pool) {
  ForRows(pool, m, 128, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> sigmoid(d);
    for (std::int64_t r = begin; r < end; ++r) {
      const float* gate = gate_up + r * 2 * d;
      const float* gr = dy + r * d;
      float* dgate = d_gate_up + r * 2 * d;
      kernels::ActiveVariant().sigmoid(gate, d, sigmoid.data());
      for (int i = 0; i < d; ++i) {
        const float s = sigmoid[i], silu = gate[i] * s;
        dgate[d + i] = gr[i] * silu;
        dgate[i] = gr[i] * gate[d + i] * (s + silu * (1.0f - s));
      }
    }
  });
}

void LogProbGradient(float* logits, std::int64_t m, int n, float temperature,
                     const std::int32_t* target, const float* lse, const float* g, const float* ge,
                     const float* entropy, kernels::ThreadPool& pool) {
  const std::int64_t grain = std::max<std::int64_t>(1, 32768 / n);
  ForRows(pool, m, grain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> scaled(n);
    for (std::int64_t r = begin; r < end; ++r) {
      float* d = logits + r * n;
      kernels::ActiveVariant().probabilities(d, n, temperature, lse[r], scaled.data(), d);
      if (ge) {  // dH/dx = -p (log p + H)
        const float shift = entropy[r] - lse[r];
        for (int i = 0; i < n; ++i) d[i] *= -(g[r] + ge[r] * (scaled[i] + shift));
      } else {
        for (int i = 0; i < n; ++i) d[i] *= -g[r];
      }
      d[target[r]] += g[r];
      for (int i = 0; i < n && temperature != 1.0f; ++i) d[i] /= temperature;
    }
  });
}

void CombineGradient(const float* out, const float* dy, const std::int32_t* slot,
                     const float* weight, std::int64_t m, int k, int h, float* d_out,
                     float* d_weight, kernels::ThreadPool& pool) {
  ForRows(pool, m, 128, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * k; i < end * k; ++i) {
      const float* g = dy + i / k * h;
      d_weight[i] = Dot(out + std::int64_t{slot[i]} * h, g, h);
      float* to = d_out + std::int64_t{slot[i]} * h;
      for (int j = 0; j < h; ++j) to[j] = weight[i] * g[j];
    }
  });
}

void AddSlots(const float* d_gathered, const std::int32_t* slot, const float* more, std::int64_t m,
              int k, int h, float* dx, kernels::ThreadPool& pool) {
  ForRows(pool, m, 128, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      for (int j = 0; j < k; ++j)
        Axpy(1.0f, d_gathered + std::int64_t{slot[t * k + j]} * h, h, dx + t * h);
      if (more) Axpy(1.0f, more + t * h, h, dx + t * h);
    }
  });
}

void RopeTransposed(float* x, std::int64_t ldx, int heads, std::int64_t ldh, int dim,
                    const std::int32_t* position, std::int64_t m, const float* table,
                    kernels::ThreadPool& pool) {
  ForRows(pool, m, 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* angle = table + std::int64_t(position[r]) * dim;
      for (int h = 0; h < heads; ++h) {
        float* v = x + r * ldx + h * ldh;
        for (int i = 0; i < dim; i += 2) {
          const float a = v[i], b = v[i + 1], c = angle[i], s = angle[i + 1];
          v[i] = a * c + b * s;
          v[i + 1] = b * c - a * s;
        }
      }
    }
  });
}

void SumHeads(const float* x, std::int64_t m, int heads, int d, float* to, std::int64_t ldt,
              kernels::ThreadPool& pool) {
  ForRows(pool, m, 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float* from = x + t * heads * d;
      std::copy_n(from, d, to + t * ldt);
      for (int h = 1; h < heads; ++h) Axpy(1.0f, from + h * d, d, to + t * ldt);
    }
  });
}

}  // namespace temper::learner
