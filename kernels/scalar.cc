// The scalar reference: the written orders as plain loops. Every other variant equals it bit for
// bit.
#include <algorithm>
#include <cmath>

#include "kernels/linear.h"
#include "kernels/math.h"
#include "kernels/variant.h"

namespace temper::kernels {
namespace {

/// The sum of Linear(): blocks of 128 from 0, each added to the running y.
template <typename W, typename X>
float BlockedDot(int k, const W& w, const X& x) {
  float y = 0.0f;
  for (int k0 = 0; k0 < k; k0 += kBlock) {
    float a = 0.0f;
    for (int j = k0; j < std::min(k0 + kBlock, k); ++j) a = std::fma(w(j), x(j), a);
    y = y + a;
  }
  return y;
}

float TreeSum(float* lane) {
  for (int half = 8; half >= 1; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] = lane[i] + lane[i + half];
  }
  return lane[0];
}

void ScalarLinear(const LinearBlock& b) {
  for (int r = 0; r < b.m; ++r) {
    for (int i = b.panel * kPanel; i < std::min(b.panel_end * kPanel, b.n); ++i) {
      const float* w = b.w + static_cast<std::int64_t>(i / kPanel) * b.k * kPanel + i % kPanel;
      const float* x = b.x + r * b.ldx;
      b.y[r * b.ldy + i] = BlockedDot(
          b.k, [&](int j) { return w[j * kPanel]; }, [&](int j) { return x[j]; });
    }
  }
}

/// Softmax numerators in place of the scores; returns their maximum and sum.
MaxSum Softmax(float* s, int n) {
  float m = s[0];
  for (int j = 1; j < n; ++j) m = std::max(m, s[j]);
  float lane[16] = {};
  for (int j = 0; j < n; ++j) {
    s[j] = Exp(s[j] - m);
    lane[j % 16] = lane[j % 16] + s[j];
  }
  return {m, TreeSum(lane)};
}

/// One query head over the row's keys. q [latent + rope], o [latent].
void AttendHead(const float* q, const AttentionRow& row, const AttentionBlock& b, float* o) {
  MaxSum all{0, 0};
  float p[kSplit];
  for (int first = 0; first < row.count; first += kSplit) {
    const int n = std::min(kSplit, row.count - first);
    const float* const* key = row.keys + first;
    for (int j = 0; j < n; ++j) {
      p[j] = b.scale * BlockedDot(
                           b.latent + b.rope, [&](int d) { return key[j][b.offset + d]; },
                           [&](int d) { return q[d]; });
    }
    const MaxSum split = Softmax(p, n);
    const float m = std::max(all.max, split.max);
    const float e_old = first == 0 ? 0.0f : Exp(all.max - m);
    const float e_new = first == 0 ? 0.0f : Exp(split.max - m);
    for (int d = 0; d < b.latent; ++d) {
      const float part = BlockedDot(
          n, [&](int j) { return key[j][b.offset + d]; }, [&](int j) { return p[j]; });
      o[d] = first == 0 ? part : std::fma(part, e_new, o[d] * e_old);
    }
    all = first == 0 ? split : MaxSum{m, std::fma(split.sum, e_new, all.sum * e_old)};
  }
  for (int d = 0; d < b.latent; ++d) o[d] = o[d] / all.sum;
}

void ScalarAttention(const AttentionBlock& b) {
  const int dim = b.latent + b.rope;
  for (int r = 0; r < b.m; ++r) {
    for (int h = 0; h < b.heads; ++h) {
      const std::int64_t pair = static_cast<std::int64_t>(r) * b.heads + h;
      AttendHead(b.q + pair * dim, b.rows[r], b, b.o + pair * b.latent);
    }
  }
}

void ScalarRmsNorm(const float* x, const float* weight, float eps, int d, float* y) {
  float lane[16] = {};
  for (int i = 0; i < d; ++i) lane[i % 16] = std::fma(x[i], x[i], lane[i % 16]);
  const float mean = TreeSum(lane) / static_cast<float>(d);
  const float scale = 1.0f / std::sqrt(mean + eps);
  for (int i = 0; i < d; ++i) y[i] = (x[i] * scale) * weight[i];
}

void ScalarRope(float* x, int heads, std::int64_t ldh, int dim, const float* cos_sin) {
  for (int h = 0; h < heads; ++h) {
    for (int i = 0; i < dim; i += 2) {
      float* pair = x + h * ldh + i;
      const float a = pair[0], b = pair[1], cos = cos_sin[i], sin = cos_sin[i + 1];
      pair[0] = std::fma(a, cos, -(b * sin));
      pair[1] = std::fma(b, cos, a * sin);
    }
  }
}

void ScalarSwiGlu(const float* gate, const float* up, int d, float* y) {
  for (int i = 0; i < d; ++i) y[i] = (gate[i] * Sigmoid(gate[i])) * up[i];
}

void ScalarSigmoid(const float* x, int n, float* y) {
  for (int i = 0; i < n; ++i) y[i] = Sigmoid(x[i]);
}

MaxSum ScalarChunkMaxSum(const float* logits, int n, float temperature) {
  float x[kChunk];
  for (int i = 0; i < n; ++i) x[i] = logits[i] / temperature;
  return Softmax(x, n);
}

float ScalarChunkPLogP(const float* logits, int n, float temperature, float lse) {
  float lane[16] = {};
  for (int i = 0; i < n; ++i) {
    const float logp = logits[i] / temperature - lse;
    lane[i % 16] = std::fma(Exp(logp), logp, lane[i % 16]);
  }
  return TreeSum(lane);
}

void ScalarProbabilities(const float* logits, int n, float temperature, float lse, float* x,
                         float* p) {
  for (int i = 0; i < n; ++i) {
    const float scaled = logits[i] / temperature;
    if (x != nullptr) x[i] = scaled;
    p[i] = Exp(scaled - lse);
  }
}

}  // namespace

const Variant kScalarVariant = {ScalarLinear,      ScalarAttention,  ScalarRmsNorm,
                                ScalarRope,        ScalarSwiGlu,     ScalarSigmoid,
                                ScalarChunkMaxSum, ScalarChunkPLogP, ScalarProbabilities};

}  // namespace temper::kernels
