#include "kernels/attention.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernels/parts.h"
#include "kernels/variant.h"

namespace temper::kernels {
namespace {

// Query heads that share one transposition of the keys: enough to pay for it, few enough for the
// cache.
constexpr int kPairs = 192;
constexpr int kRows = 32;

struct RowRange {
  int row, end, keys;
};

void AddRanges(const AttentionRow* rows, int m, int heads, int latent, int rope,
               TaskList<RowRange>& list) {
  const int limit = std::clamp(kPairs / heads, 1, kRows);
  for (int row = 0; row < m;) {
    int end = row, most = 0;
    std::int64_t keys = 0;
    for (; end < m && end - row < limit && rows[end].keys == rows[row].keys; ++end) {
      if (rows[end].count < 1) {
        throw std::logic_error("MlaAttention: row " + std::to_string(end) + " sees " +
                               std::to_string(rows[end].count) + " keys; it sees at least its own");
      }
      most = std::max(most, rows[end].count);
      keys += rows[end].count;
    }
    const std::int64_t fma =
        keys * heads * (2 * latent + rope + 16) + std::int64_t{most} * (latent + rope);
    list.Add({row, end, most}, FmaTime(fma * 3 / 2) + 200);
    row = end;
  }
}

}  // namespace

std::int64_t AttentionScratch(int m, int heads, int latent, int rope, int keys) {
  const std::int64_t padded = (std::min(keys, kSplit) + 15) / 16 * 16;
  const std::int64_t pairs = std::int64_t{m} * heads;
  return 2 * padded * (latent + rope) + pairs * (padded + 2) + 6 * std::int64_t{latent} + 64;
}

void MlaAttention(const float* q, const AttentionRow* rows, int m, int heads, int latent, int rope,
                  float scale, CacheType type, std::int64_t offset, float* o, ThreadPool& pool) {
  if (m < 0 || heads < 1 || latent < 1 || rope < 0) {
    throw std::logic_error("MlaAttention: needs m >= 0, heads >= 1, latent >= 1, rope >= 0");
  }
  thread_local TaskList<RowRange> list;
  list.Clear();
  AddRanges(rows, m, heads, latent, rope, list);
  const auto attention = ActiveVariant().attention;
  list.Run(pool, [=](const RowRange& range) {
    thread_local Scratch scratch;
    const int n = range.end - range.row;
    const std::int64_t pair = std::int64_t{range.row} * heads;
    attention({q + pair * (latent + rope), rows + range.row, n, heads, latent, rope, scale, type,
               offset, o + pair * latent,
               scratch.Reserve(AttentionScratch(n, heads, latent, rope, range.keys))});
  });
}

}  // namespace temper::kernels
