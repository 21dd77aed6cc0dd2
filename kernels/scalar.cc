// The scalar reference: the written orders as plain loops. Every other variant equals it bit for
// bit.
#include <algorithm>
#include <cmath>

#include "kernels/bf16.h"
#include "kernels/cache_row.h"
#include "kernels/fp8_table.h"
#include "kernels/linear.h"
#include "kernels/math.h"
#include "kernels/variant.h"

namespace temper::kernels {
namespace {

/// The sum of Linear(): blocks of 128 from 0, each times its scale added to the running y.
template <typename W, typename X, typename S>
float BlockedDot(int k, const W& w, const X& x, const S& scale) {
  float y = 0.0f;
  for (int k0 = 0; k0 < k; k0 += kBlock) {
    float a = 0.0f;
    for (int j = k0; j < std::min(k0 + kBlock, k); ++j) a = std::fma(w(j), x(j), a);
    y = std::fma(a, scale(k0 / kBlock), y);
  }
  return y;
}

/// Without scales: fma(a, 1, y) is y + a.
template <typename W, typename X>
float BlockedDot(int k, const W& w, const X& x) {
  return BlockedDot(k, w, x, [](int) { return 1.0f; });
}

float TreeSum(float* lane) {
  for (int half = 8; half >= 1; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] = lane[i] + lane[i + half];
  }
  return lane[0];
}

/// `value(i, k)` is W[i, k].
template <typename Value>
void LinearRows(const LinearBlock& b, const Value& value) {
  const std::int64_t blocks = (b.w.k + kBlock - 1) / kBlock;
  for (int r = 0; r < b.m; ++r) {
    const float* x = b.x + r * b.ldx;
    for (int i = b.panel * kPanel; i < std::min(b.panel_end * kPanel, b.w.n); ++i) {
      const auto scale = [&](int block) {
        if (b.w.scale == nullptr) return 1.0f;
        const float s = b.w.scale[i / kBlock * blocks + block];
        return b.x_scale == nullptr ? s : b.x_scale[r * b.ld_x_scale + block] * s;
      };
      b.y[r * b.ldy + i] = BlockedDot(
          b.w.k, [&](int k) { return value(i, k); }, [&](int k) { return x[k]; }, scale);
    }
  }
}

void ScalarLinear(const LinearBlock& b) {
  const auto at = [&](int i, int k) {
    return (std::int64_t{i / kPanel} * b.w.k + k) * kPanel + i % kPanel;
  };
  switch (b.w.type) {
    case WeightType::kF32:
      return LinearRows(
          b, [&](int i, int k) { return static_cast<const float*>(b.w.data)[at(i, k)]; });
    case WeightType::kBf16:
      return LinearRows(b, [&](int i, int k) {
        return DecodeBf16(static_cast<const std::uint16_t*>(b.w.data)[at(i, k)]);
      });
    case WeightType::kFp8:
      return LinearRows(b, [&](int i, int k) {
        return kShiftedE4m3.value[static_cast<const std::uint8_t*>(b.w.data)[at(i, k)]];
      });
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
  const int dim = b.latent + b.rope;
  MaxSum all{0, 0};
  float p[kSplit];
  for (int first = 0; first < row.count; first += kSplit) {
    const int n = std::min(kSplit, row.count - first);
    float* key = b.scratch;  // [n][dim]
    for (int j = 0; j < n; ++j) {
      LoadCacheRow(b.type, static_cast<const char*>(row.keys[first + j]) + b.offset, b.latent,
                   b.rope, key + j * dim);
    }
    for (int j = 0; j < n; ++j) {
      p[j] =
          b.scale * BlockedDot(
                        dim, [&](int d) { return key[j * dim + d]; }, [&](int d) { return q[d]; });
    }
    const MaxSum split = Softmax(p, n);
    const float m = std::max(all.max, split.max);
    const float e_old = first == 0 ? 0.0f : Exp(all.max - m);
    const float e_new = first == 0 ? 0.0f : Exp(split.max - m);
    for (int d = 0; d < b.latent; ++d) {
      const float part = BlockedDot(
          n, [&](int j) { return key[j * dim + d]; }, [&](int j) { return p[j]; });
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
