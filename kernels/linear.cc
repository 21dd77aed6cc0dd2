#include "kernels/linear.h"

#include <algorithm>
#include <stdexcept>

#include "kernels/parts.h"
#include "kernels/variant.h"

namespace temper::kernels {
namespace {

constexpr int kRowBlock = 48;      // rows of x that stay in the second-level cache for all panels
constexpr int kPanelMultiple = 4;  // one row walks four panels at once

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
      list.Add(
          {item.w, panel, end, item.x + row * item.ldx, item.ldx, rows, item.y + row * item.ldy,
           item.ldy, item.x_scale == nullptr ? nullptr : item.x_scale + row * item.ld_x_scale,
           item.ld_x_scale},
          time * (end - panel));
    }
  }
}

void CheckItem(const LinearItem& item) {
  if (item.m < 0 || item.w.n < 0 || (item.m > 0 && item.w.k < 1)) {
    throw std::logic_error("LinearMany: an item needs m >= 0, n >= 0 and k >= 1");
  }
  const bool fp8 = item.w.type == WeightType::kFp8;
  if (fp8 != (item.w.scale != nullptr)) {
    throw std::logic_error("LinearMany: FP8 weights have scales, others none");
  }
  if (!fp8 && item.x_scale != nullptr) {
    throw std::logic_error("LinearMany: only FP8 weights take quantised activations");
  }
}

}  // namespace

void Linear(const LinearWeight& w, const float* x, std::int64_t ldx, int m, float* y,
            std::int64_t ldy, ThreadPool& pool) {
  const LinearItem item{w, x, ldx, m, y, ldy};
  LinearMany(&item, 1, pool);
}

void LinearMany(const LinearItem* items, int count, ThreadPool& pool) {
  thread_local TaskList<LinearBlock> list;
  list.Clear();
  for (int i = 0; i < count; ++i) {
    CheckItem(items[i]);
    AddBlocks(items[i], list);
  }
  list.Run(pool, ActiveVariant().linear);
}

}  // namespace temper::kernels
