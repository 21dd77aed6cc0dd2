#pragma once
// Matrix products of the backward pass, by the linear kernels on operands packed for the call. No
// LibTorch.
#include <cstdint>

#include "kernels/thread_pool.h"

namespace temper::learner {

/// How the operands of out [m, n] = sum over k lie in memory, rows with a stride in floats.
enum class Form {
  kRows,     // a [m, k], b [k, n]: dx = g w
  kColumns,  // a [k, m], b [k, n]: dw = g^T x
  kOutputs,  // a [m, k], b [n, k]: y = x w^T
};

struct Product {
  int m = 0, n = 0, k = 0;  // k may be 0: zeros
  const float* a = nullptr;
  std::int64_t lda = 0;
  const float* b = nullptr;
  std::int64_t ldb = 0;
  float* out = nullptr;  // [m, n], overwritten, aliases nothing
  std::int64_t ldo = 0;
};

/// All products in two parallel regions: pack, multiply. The sum over k is in the order of
/// kernels::Linear, so the bits depend on nothing but the operands. Called by one thread at a time.
void Multiply(Form form, const Product* products, int count, kernels::ThreadPool& pool);

inline void Multiply(Form form, const Product& product, kernels::ThreadPool& pool) {
  Multiply(form, &product, 1, pool);
}

/// to[j * ldt + i] = from[i * ldf + j] for i < rows, j < columns.
void Transpose(const float* from, std::int64_t ldf, std::int64_t rows, std::int64_t columns,
               float* to, std::int64_t ldt);

/// Rows [begin, end) of w [rows, n] into a packed LinearWeight [n outputs][rows inputs], the
/// transpose of w.
void PackRows(const float* w, std::int64_t ldw, std::int64_t rows, int n, std::int64_t begin,
              std::int64_t end, float* out);

/// The panels [begin, end) of w [n, k] into a packed LinearWeight [n outputs][k inputs].
void PackPanels(const float* w, std::int64_t ldw, int n, int k, int begin, int end, float* out);

}  // namespace temper::learner
