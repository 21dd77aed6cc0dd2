#include "kernels/linear.h"

#include <algorithm>
#include <stdexcept>

#include "kernels/parts.h"
#include "kernels/variant.h"

namespace temper::kernels {
namespace {

constexpr std::int64_t kLongPart = 200000;  // nanoseconds
constexpr std::int64_t kParts = 64;         // of a long call
constexpr std::int64_t kBytesRead = 16;     // a nanosecond, from memory
// Panels of a part: enough of them pay for packing the rows, so few that their outputs stay in the
// second-level cache. A few rows are not packed.
constexpr int kFewRows = 4, kFewPanels = 4, kMinPanels = 8, kMaxPanels = 32;

/// Rows of x that stay in the second-level cache for all panels: shallow layers are cut into more
/// parts.
int RowBlock(int k) { return k <= 512 ? 48 : k <= 1024 ? 96 : 192; }

std::int64_t PanelTime(const LinearWeight& w, int rows) {
  const std::int64_t size = std::int64_t{kPanel} * w.k;
  const std::int64_t bytes = size * static_cast<std::int64_t>(ElementBytes(w.type));
  return std::max(FmaTime(rows * size), bytes / kBytesRead) + 20;
}

int Panels(const LinearWeight& w) { return (w.n + kPanel - 1) / kPanel; }

std::int64_t ItemTime(const LinearItem& item) {
  return item.m == 0 ? 0 : PanelTime(item.w, item.m) * Panels(item.w);
}

void AddBlocks(const LinearItem& item, std::int64_t part, TaskList<LinearBlock>& list) {
  if (item.m == 0 || item.w.n == 0) return;
  const int panels = Panels(item.w), row_block = RowBlock(item.w.k);
  const int blocks = (item.m + row_block - 1) / row_block;
  for (int i = 0, row = 0; i < blocks; ++i) {
    const int rows = (item.m - row + blocks - i - 1) / (blocks - i);
    const std::int64_t time = PanelTime(item.w, rows);
    const int least = rows <= kFewRows ? kFewPanels : kMinPanels;
    const int most =
        static_cast<int>(std::clamp<std::int64_t>(part / time, least, std::max(least, kMaxPanels)));
    const int pieces = (panels + most - 1) / most;
    // Even numbers of panels: tiles take two.
    const int step = ((panels + pieces - 1) / pieces + 1) / 2 * 2;
    for (int panel = 0; panel < panels; panel += step) {
      const int end = std::min(panel + step, panels);
      list.Add(
          {item.w, panel, end, item.x + row * item.ldx, item.ldx, rows, item.y + row * item.ldy,
           item.ldy, item.x_scale == nullptr ? nullptr : item.x_scale + row * item.ld_x_scale,
           item.ld_x_scale},
          time * (end - panel));
    }
    row += rows;
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
  std::int64_t total = 0;
  for (int i = 0; i < count; ++i) {
    CheckItem(items[i]);
    total += ItemTime(items[i]);
  }
  const std::int64_t part = std::clamp(total / kParts, kPartTime, kLongPart);
  for (int i = 0; i < count; ++i) AddBlocks(items[i], part, list);
  list.Run(pool, ActiveVariant().linear);
}

}  // namespace temper::kernels
