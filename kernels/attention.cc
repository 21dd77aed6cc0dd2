#include "kernels/attention.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernels/parts.h"
#include "kernels/variant.h"

namespace temper::kernels {
namespace {

// Pairs of row and head that share one reading of the keys: enough to pay for it, few enough for
// the second-level cache.
constexpr int kMostPairs = 192, kFewestPairs = 8;
constexpr std::int64_t kQueryFloats = 72 * 1024;
// Each piece reads the keys anew, so there are few: some for each thread, of at least so many
// nanoseconds.
constexpr std::int64_t kShortPiece = 30000, kPieces = 3;

struct PairRange {
  std::int64_t pair;  // of the call
  int pairs;
};

void CheckRows(const AttentionRow* rows, int m) {
  for (int r = 0; r < m; ++r) {
    if (rows[r].count >= 1) continue;
    throw std::logic_error("MlaAttention: row " + std::to_string(r) + " sees " +
                           std::to_string(rows[r].count) + " keys; it sees at least its own");
  }
}

std::int64_t PairTime(std::int64_t keys, int latent, int rope) {
  return FmaTime(keys * (2 * latent + rope + 16)) + 20;
}

/// Rows whose first split is the same are one group, cut into ranges of pairs.
void AddRanges(const AttentionRow* rows, int m, int heads, int latent, int rope, int threads,
               TaskList<PairRange>& list) {
  std::int64_t total = 0;
  for (int r = 0; r < m; ++r) total += heads * PairTime(rows[r].count, latent, rope);
  const std::int64_t piece =
      threads == 1 ? total : std::max(total / (kPieces * threads), kShortPiece);
  const std::int64_t fit = kQueryFloats / (latent + rope);
  const std::int64_t most = std::clamp<std::int64_t>(fit, kFewestPairs, kMostPairs);
  for (int row = 0; row < m;) {
    int end = row;
    std::int64_t keys = 0, longest = 0;
    for (; end < m && (end == row || SharesKeys(rows[row], rows[end], 0)); ++end) {
      keys += rows[end].count;
      longest = std::max<std::int64_t>(longest, rows[end].count);
    }
    const std::int64_t pairs = std::int64_t{end - row} * heads;
    const std::int64_t time = heads * PairTime(keys, latent, rope);
    const std::int64_t reading = FmaTime(longest * (latent + rope)) + 200;
    if (pairs <= kFewestPairs || (pairs <= most && time <= piece)) {
      list.Add({std::int64_t{row} * heads, static_cast<int>(pairs)}, time + reading);
      row = end;
      continue;
    }
    const std::int64_t step = std::clamp(pairs * piece / time, std::int64_t{kFewestPairs}, most);
    const std::int64_t pieces = (pairs + step - 1) / step, first = std::int64_t{row} * heads;
    for (std::int64_t i = 0; i < pieces; ++i) {
      const std::int64_t begin = pairs * i / pieces, last = pairs * (i + 1) / pieces;
      list.Add({first + begin, static_cast<int>(last - begin)}, time / pieces + reading);
    }
    row = end;
  }
}

}  // namespace

bool SharesKeys(const AttentionRow& a, const AttentionRow& b, int first) {
  if (a.keys == b.keys) return true;
  const int n = std::min({a.count - first, b.count - first, kSplit});
  return n > 0 && std::equal(a.keys + first, a.keys + first + n, b.keys + first);
}

std::int64_t AttentionScratch(int pairs, int latent, int rope) {
  const std::int64_t dim = std::int64_t{latent} + rope, p = pairs;
  return (32 + kSplit) * dim + p * kSplit + 32 * kSplit +
         std::max(p * 32, std::int64_t{6} * latent) + 4 * p + 16 * 16;
}

void MlaAttention(const float* q, const AttentionRow* rows, int m, int heads, int latent, int rope,
                  float scale, CacheType type, std::int64_t offset, float* o, ThreadPool& pool) {
  if (m < 0 || heads < 1 || latent < 1 || rope < 0) {
    throw std::logic_error("MlaAttention: needs m >= 0, heads >= 1, latent >= 1, rope >= 0");
  }
  CheckRows(rows, m);
  thread_local TaskList<PairRange> list;
  list.Clear();
  AddRanges(rows, m, heads, latent, rope, pool.threads(), list);
  const auto attention = ActiveVariant().attention;
  list.Run(pool, [=](const PairRange& range) {
    thread_local Scratch scratch;
    attention({q + range.pair * (latent + rope), rows + range.pair / heads,
               static_cast<int>(range.pair % heads), range.pairs, heads, latent, rope, scale, type,
               offset, o + range.pair * latent,
               scratch.Reserve(AttentionScratch(range.pairs, latent, rope))});
  });
}

}  // namespace temper::kernels
