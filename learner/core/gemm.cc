#include "learner/core/gemm.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/linear.h"
#include "kernels/parts.h"
#include "kernels/transpose8.h"

namespace temper::learner {

namespace {

using kernels::kPanel;

constexpr std::int64_t kPackRows = 64;
constexpr std::int64_t kLine = 16;  // floats of a cache line

/// An operand on its way into the scratch.
struct PackTask {
  enum { kTransposeA, kPackRowsB, kPackPanelsB } what;
  const Product* product;
  float* to;
  std::int64_t begin, end;  // rows of the operand
};

/// Rows of a transposed operand lie an odd number of cache lines apart: they never share one set of
/// the cache.
std::int64_t TransposedStride(std::int64_t k) { return ((k + kLine - 1) / kLine | 1) * kLine; }

void Pack(const PackTask& task) {
  const Product& p = *task.product;
  switch (task.what) {
    case PackTask::kTransposeA:
      Transpose(p.a + task.begin * p.lda, p.lda, task.end - task.begin, p.m, task.to + task.begin,
                TransposedStride(p.k));
      break;
    case PackTask::kPackRowsB:
      PackRows(p.b, p.ldb, p.k, p.n, task.begin, task.end, task.to);
      break;
    case PackTask::kPackPanelsB:
      PackPanels(p.b, p.ldb, p.n, p.k, int(task.begin) / kPanel,
                 int(task.end + kPanel - 1) / kPanel, task.to);
      break;
  }
}

void AddTasks(kernels::TaskList<PackTask>& list, const PackTask& whole, std::int64_t columns) {
  for (std::int64_t begin = whole.begin; begin < whole.end; begin += kPackRows) {
    PackTask task = whole;
    task.begin = begin;
    task.end = std::min(begin + kPackRows, whole.end);
    list.Add(task, (task.end - task.begin) * columns / 2);
  }
}

bool Empty(const Product& p) {
  if (p.m == 0 || p.n == 0) return true;
  if (p.k > 0) return false;
  for (int r = 0; r < p.m; ++r) std::fill_n(p.out + r * p.ldo, p.n, 0.0f);
  return true;
}

std::int64_t Lines(std::int64_t floats) { return (floats + kLine - 1) / kLine * kLine; }

}  // namespace

void Transpose(const float* from, std::int64_t ldf, std::int64_t rows, std::int64_t columns,
               float* to, std::int64_t ldt) {
  const std::int64_t whole_rows = rows / 8 * 8, whole_columns = columns / 8 * 8;
  for (std::int64_t i = 0; i < whole_rows; i += 8) {
    for (std::int64_t j = 0; j < whole_columns; j += 8)
      kernels::Transpose8([&](int r) { return from + (i + r) * ldf + j; }, to + j * ldt + i, ldt);
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j)
      to[j * ldt + i] = from[i * ldf + j];
  }
}

void PackRows(const float* w, std::int64_t ldw, std::int64_t rows, int n, std::int64_t begin,
              std::int64_t end, float* out) {
  for (int i0 = 0; i0 < n; i0 += kPanel) {
    float* to = out + i0 * rows + begin * kPanel;
    const int width = std::min(kPanel, n - i0);
    for (std::int64_t r = begin; r < end; ++r, to += kPanel) {
      const float* from = w + r * ldw + i0;
      if (width == kPanel) {
        std::memcpy(to, from, kPanel * sizeof(float));
      } else {
        std::fill(std::copy_n(from, width, to), to + kPanel, 0.0f);
      }
    }
  }
}

void PackPanels(const float* w, std::int64_t ldw, int n, int k, int begin, int end, float* out) {
  for (int panel = begin; panel < end; ++panel) {
    float* to = out + std::int64_t{panel} * k * kPanel;
    const int width = std::min(kPanel, n - panel * kPanel);
    Transpose(w + panel * kPanel * ldw, ldw, width, k, to, kPanel);
    for (int j = 0; j < k && width < kPanel; ++j)
      std::fill(to + j * kPanel + width, to + (j + 1) * kPanel, 0.0f);
  }
}

void Multiply(Form form, const Product* products, int count, kernels::ThreadPool& pool) {
  thread_local kernels::Scratch scratch;
  thread_local kernels::TaskList<PackTask> tasks;
  thread_local std::vector<kernels::LinearItem> items;
  std::int64_t floats = 0;
  for (int i = 0; i < count; ++i) {
    const Product& p = products[i];
    floats += Lines(kernels::PackedSize(p.n, std::max(p.k, 1))) +
              (form == Form::kColumns ? p.m * TransposedStride(p.k) : 0);
  }
  float* next = scratch.Reserve(floats);
  tasks.Clear();
  items.clear();
  for (int i = 0; i < count; ++i) {
    const Product& p = products[i];
    if (Empty(p)) continue;
    kernels::LinearItem item{{next, p.n, p.k}, p.a, p.lda, p.m, p.out, p.ldo};
    if (form == Form::kOutputs) {
      AddTasks(tasks, {PackTask::kPackPanelsB, &p, next, 0, p.n}, p.k);
    } else {
      AddTasks(tasks, {PackTask::kPackRowsB, &p, next, 0, p.k}, p.n);
    }
    next += Lines(kernels::PackedSize(p.n, p.k));
    if (form == Form::kColumns) {
      AddTasks(tasks, {PackTask::kTransposeA, &p, next, 0, p.k}, p.m);
      item.x = next;
      item.ldx = TransposedStride(p.k);
      next += p.m * item.ldx;
    }
    items.push_back(item);
  }
  tasks.Run(pool, Pack);
  kernels::LinearMany(items.data(), int(items.size()), pool);
}

}  // namespace temper::learner
