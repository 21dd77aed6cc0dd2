#include "kernels/ops.h"

#include <cmath>
#include <stdexcept>

#include "kernels/parts.h"
#include "kernels/variant.h"

namespace temper::kernels {

void RmsNorm(const float* x, std::int64_t ldx, const float* weight, float eps, int m, int d,
             float* y, std::int64_t ldy, ThreadPool& pool) {
  const auto row = ActiveVariant().rms_norm;
  ForPieces(pool, m, std::int64_t{d} * 150 + 20000, [=](std::int64_t first, std::int64_t end) {
    for (std::int64_t r = first; r < end; ++r) row(x + r * ldx, weight, eps, d, y + r * ldy);
  });
}

void Rope(float* x, std::int64_t ldx, int heads, std::int64_t ldh, int dim,
          const std::int32_t* position, int m, const float* table, ThreadPool& pool) {
  if (dim % 2 != 0) throw std::logic_error("Rope: dim is odd; it rotates pairs");
  const auto row = ActiveVariant().rope;
  const std::int64_t each = (std::int64_t{dim} * 100 + 4000) * heads;
  ForPieces(pool, m, each, [=](std::int64_t first, std::int64_t end) {
    for (std::int64_t r = first; r < end; ++r) {
      row(x + r * ldx, heads, ldh, dim, table + std::int64_t{position[r]} * dim);
    }
  });
}

void SwiGlu(const float* gate_up, std::int64_t ld, int m, int d, float* y, std::int64_t ldy,
            ThreadPool& pool) {
  const auto row = ActiveVariant().swiglu;
  ForPieces(pool, m, std::int64_t{d} * 500 + 5000, [=](std::int64_t first, std::int64_t end) {
    for (std::int64_t r = first; r < end; ++r) {
      row(gate_up + r * ld, gate_up + r * ld + d, d, y + r * ldy);
    }
  });
}

// The two below are lane by lane: the compiler's vector code of the plain loop is the same
// arithmetic, so one body serves every variant.

void Add(const float* a, const float* b, std::int64_t count, float* y, ThreadPool& pool) {
  ForPieces(pool, count, 100, [=](std::int64_t first, std::int64_t end) {
    for (std::int64_t i = first; i < end; ++i) y[i] = a[i] + b[i];
  });
}

void CombineExperts(const float* expert_out, std::int64_t lde, const std::int32_t* slot,
                    const float* weight, int k, const float* shared, std::int64_t lds,
                    const float* residual, std::int64_t ldr, int m, int d, float* y,
                    std::int64_t ldy, ThreadPool& pool) {
  constexpr int kColumns = 64;
  const std::int64_t each = std::int64_t{d} * (k + 3) * 80 + 5000;
  ForPieces(pool, m, each, [=](std::int64_t first, std::int64_t end) {
    for (std::int64_t r = first; r < end; ++r) {
      for (int c = 0; c < d; c += kColumns) {
        const int n = std::min(kColumns, d - c);
        float sum[kColumns] = {};
        for (int j = 0; j < k; ++j) {
          const float w = weight[r * k + j];
          const float* expert = expert_out + slot[r * k + j] * lde + c;
          for (int i = 0; i < n; ++i) sum[i] = std::fma(w, expert[i], sum[i]);
        }
        if (shared != nullptr) {
          const float* more = shared + r * lds + c;
          for (int i = 0; i < n; ++i) sum[i] = sum[i] + more[i];
        }
        const float* before = residual != nullptr ? residual + r * ldr + c : nullptr;
        float* out = y + r * ldy + c;
        for (int i = 0; i < n; ++i) out[i] = before != nullptr ? before[i] + sum[i] : sum[i];
      }
    }
  });
}

}  // namespace temper::kernels
