// Log-sum-exp over the vocabulary in chunks, and what follows from it.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "kernels/math.h"
#include "kernels/parts.h"
#include "kernels/sampling.h"
#include "kernels/variant.h"

namespace temper::kernels {
namespace {

constexpr std::int64_t kPicoseconds = 900;  // an entry: one exponential

void CheckRows(int m, int v, float temperature) {
  if (m < 0 || v < 1 || !(temperature > 0.0f)) {
    throw std::logic_error("LogSumExp: needs m >= 0, v >= 1 and temperature > 0, not " +
                           std::to_string(temperature));
  }
}

float RowLogSumExp(const Variant& variant, const float* logits, int v, float temperature) {
  MaxSum all{};
  for (int i = 0; i < v; i += kChunk) {
    const MaxSum chunk = variant.chunk_max_sum(logits + i, std::min(kChunk, v - i), temperature);
    all = i == 0 ? chunk : MergeChunks(all, chunk);
  }
  return FinishLogSumExp(all);
}

}  // namespace

MaxSum MergeChunks(MaxSum all, MaxSum chunk) {
  const float max = std::max(all.max, chunk.max);
  return {max, std::fma(chunk.sum, Exp(chunk.max - max), all.sum * Exp(all.max - max))};
}

float FinishLogSumExp(MaxSum all) { return all.max + Log(all.sum); }

void LogSumExp(const float* logits, std::int64_t ld, int m, int v, float temperature, float* lse,
               ThreadPool& pool) {
  CheckRows(m, v, temperature);
  const Variant& variant = ActiveVariant();
  const int chunks = (v + kChunk - 1) / kChunk;
  if (m >= 2 * pool.threads() || chunks < 8) {
    ForPieces(pool, m, v * kPicoseconds + 40000, [&](std::int64_t first, std::int64_t end) {
      for (std::int64_t r = first; r < end; ++r) {
        lse[r] = RowLogSumExp(variant, logits + r * ld, v, temperature);
      }
    });
    return;
  }
  // Few long rows: the chunks are the work. Merged afterwards in the same order.
  thread_local Scratch scratch;
  float* part = scratch.Reserve(std::int64_t{2} * m * chunks);
  ForPieces(pool, std::int64_t{m} * chunks, kChunk * kPicoseconds,
            [&](std::int64_t first, std::int64_t end) {
              for (std::int64_t c = first; c < end; ++c) {
                const int i = static_cast<int>(c % chunks) * kChunk;
                const MaxSum chunk = variant.chunk_max_sum(logits + c / chunks * ld + i,
                                                           std::min(kChunk, v - i), temperature);
                part[2 * c] = chunk.max;
                part[2 * c + 1] = chunk.sum;
              }
            });
  for (int r = 0; r < m; ++r, part += 2 * chunks) {
    MaxSum all{part[0], part[1]};
    for (int c = 1; c < chunks; ++c) all = MergeChunks(all, {part[2 * c], part[2 * c + 1]});
    lse[r] = FinishLogSumExp(all);
  }
}

void TokenLogProbs(const float* logits, std::int64_t ld, int m, int v, float temperature,
                   const std::int32_t* target, float* logp, ThreadPool& pool) {
  CheckRows(m, v, temperature);
  for (int r = 0; r < m; ++r) {
    if (target[r] < 0 || target[r] >= v) {
      throw std::logic_error("TokenLogProbs: target " + std::to_string(target[r]) + " of row " +
                             std::to_string(r) + " is not in [0, " + std::to_string(v) + ")");
    }
  }
  LogSumExp(logits, ld, m, v, temperature, logp, pool);
  for (int r = 0; r < m; ++r) logp[r] = logits[r * ld + target[r]] / temperature - logp[r];
}

void Entropy(const float* logits, std::int64_t ld, int m, int v, float temperature, float* entropy,
             ThreadPool& pool) {
  CheckRows(m, v, temperature);
  const Variant& variant = ActiveVariant();
  ForPieces(pool, m, 2 * v * kPicoseconds + 40000, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t r = first; r < end; ++r) {
      const float* row = logits + r * ld;
      const float lse = RowLogSumExp(variant, row, v, temperature);
      float sum = 0.0f;
      for (int i = 0; i < v; i += kChunk) {
        sum = sum + variant.chunk_p_log_p(row + i, std::min(kChunk, v - i), temperature, lse);
      }
      entropy[r] = -sum;
    }
  });
}

}  // namespace temper::kernels
