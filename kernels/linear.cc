#include "kernels/linear.h"

#include <algorithm>
#include <stdexcept>

#include "kernels/parts.h"
#include "kernels/variant.h"

namespace temper::kernels {
namespace {

constexpr int kRowBlock = 48;      // rows of x that stay in the second-level cache for all panels
constexpr int kPanelMultiple = 4;  // one row walks four panels at once

template <typename Element>
void Pack(int n, int k, float* out, const Element& element) {
  for (int i0 = 0; i0 < n; i0 += kPanel) {
    for (int j = 0; j < k; ++j) {
      for (int i = i0; i < i0 + kPanel; ++i) *out++ = i < n ? element(i, j) : 0.0f;
    }
  }
}

void AddBlocks(const LinearItem& item, TaskList<LinearBlock>& list) {
  if (item.m == 0 || item.w.n == 0) return;
  const int n = item.w.n, k = item.w.k;
  const int panels = (n + kPanel - 1) / kPanel;
  // Deep layers read a panel from far away: more rows share it.
  const int row_block = k > 1024 ? 2 * kRowBlock : kRowBlock;
  for (int row = 0; row < item.m; row += row_block) {
    const int rows = std::min(row_block, item.m - row);
    // A row or two wait for the weights, not for the multipliers.
    const std::int64_t time = FmaTime(std::int64_t{std::max(rows, 3)} * kPanel * k) + 20;
    int step = static_cast<int>(std::max<std::int64_t>(1, kPartTime / time));
    if (step > kPanelMultiple) step = step / kPanelMultiple * kPanelMultiple;
    // Deep layers share their slices of x among panels, though a part then takes longer.
    if (k >= 512 && rows > 12) step = std::max(step, kPanelMultiple);
    for (int panel = 0; panel < panels; panel += step) {
      const int end = std::min(panel + step, panels);
      list.Add({item.w.data, n, k, panel, end, item.x + row * item.ldx, item.ldx, rows,
                item.y + row * item.ldy, item.ldy},
               time * (end - panel));
    }
  }
}

}  // namespace

std::size_t PackedSize(int n, int k) {
  if (n < 0 || k < 1) throw std::logic_error("PackedSize: a linear layer needs n >= 0 and k >= 1");
  return (static_cast<std::size_t>(n) + kPanel - 1) / kPanel * kPanel * static_cast<std::size_t>(k);
}

void PackLinear(const float* w, std::int64_t ldw, int n, int k, float* out) {
  Pack(n, k, out, [=](int i, int j) { return w[i * ldw + j]; });
}

void PackLinearTransposed(const float* w, std::int64_t ldw, int n, int k, float* out) {
  Pack(n, k, out, [=](int i, int j) { return w[j * ldw + i]; });
}

void Linear(const LinearWeight& w, const float* x, std::int64_t ldx, int m, float* y,
            std::int64_t ldy, ThreadPool& pool) {
  const LinearItem item{w, x, ldx, m, y, ldy};
  LinearMany(&item, 1, pool);
}

void LinearMany(const LinearItem* items, int count, ThreadPool& pool) {
  thread_local TaskList<LinearBlock> list;
  list.Clear();
  for (int i = 0; i < count; ++i) {
    if (items[i].m < 0 || items[i].w.n < 0 || (items[i].m > 0 && items[i].w.k < 1)) {
      throw std::logic_error("LinearMany: an item needs m >= 0, n >= 0 and k >= 1");
    }
    AddBlocks(items[i], list);
  }
  list.Run(pool, ActiveVariant().linear);
}

}  // namespace temper::kernels
