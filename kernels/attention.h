#pragma once
// Multi-head latent attention in the absorbed form, for decode, prefill and training alike.
#include <cstdint>

#include "kernels/cache_row.h"
#include "kernels/thread_pool.h"

namespace temper::kernels {

/// One query token. Rows of one sequence should be neighbours: they share the packed keys.
struct AttentionRow {
  const void* const* keys;  // bases of the sequence's rows by position; keys[0 .. count)
  int count;                // visible keys: own position + 1; >= 1
};

/// For each row r and head h:
///   s_j = scale * <q[r, h, :], key_j>, p = softmax(s), o[r, h, :] = sum_j p_j key_j[0 .. L).
///
///   q  [m][heads][L + R]  absorbed queries, latent part first, contiguous
///   key_j = LoadCacheRow(rows[r].keys[j] + offset BYTES): a latent row [L + R], latent first
///                         (offset picks the layer of a token's rows; 4-byte aligned)
///   o  [m][heads][L]      contiguous, overwritten
///
/// Order  keys in splits of 256 counted from position 0. In a split: the dot product over L + R in
///        the order of Linear() (blocks of 128, fma ascending), times scale; m = max;
///        p_j = Exp(s_j - m), masked lanes exactly 0; l = sum of p_j in 16 strided lanes (j % 16)
///        and the fixed tree; o = sum_j p_j key_j in the order of Linear() with the key index as k.
///        Splits merged in ascending order: M' = max(M, m), e_M = Exp(M - M'), e_m = Exp(m - M');
///        O = fma(o, e_m, O * e_M), S = fma(l, e_m, S * e_M); the first split is taken as is.
///        Last o = O / S (division).
/// Rows are independent: a row's bits do not depend on its neighbours. Keys at or past `count` are
/// never used: keys past the largest count of neighbouring rows are never read.
/// Throws std::logic_error on a row that sees no key.
/// Source DeepSeek-V2 (arXiv 2405.04434) sec. 2.1, absorbed form of DeepSeek-V3 inference/model.py.
void MlaAttention(const float* q, const AttentionRow* rows, int m, int heads, int latent, int rope,
                  float scale, CacheType type, std::int64_t offset, float* o, ThreadPool& pool);

}  // namespace temper::kernels
