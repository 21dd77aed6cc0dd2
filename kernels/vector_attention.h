#pragma once
// Absorbed attention over Lanes: keys transposed once for all rows and heads. Included as
// vector_linear.h is.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "kernels/linear.h"
#include "kernels/variant.h"
#include "kernels/vector_linear.h"
#include "kernels/vector_rows.h"

namespace temper::kernels {
namespace {

/// Transposes 8 x 8: column i of the 8 rows goes to out + 16 i.
TEMPER_LANES void Transpose8(const float* const* row, int d, float* out) {
  __m256 r[8], t[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(row[i] + d);
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(out + 16 * i, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(out + 16 * (i + 4), _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}

/// Tiles [ceil(n/16)][dim][16] of n keys. Lanes past n hold some finite or visible key's numbers or
/// 0: they are masked before anything is summed.
void TransposeKeys(const float* const* key, int n, int dim, float* tile) {
  for (int first = 0; first < n; first += 16, tile += 16 * dim) {
    const float* row[16];
    for (int i = 0; i < 16; ++i) row[i] = key[first + i < n ? first + i : first];
    const bool half = n - first <= 8;
    int d = 0;
    for (; d + 8 <= dim; d += 8) {
      Transpose8(row, d, tile + 16 * d);
      if (!half) Transpose8(row + 8, d, tile + 16 * d + 8);
      for (int i = 0; i < 8 && half; ++i)
        _mm256_storeu_ps(tile + 16 * (d + i) + 8, _mm256_setzero_ps());
    }
    for (; d < dim; ++d) {
      for (int i = 0; i < 16; ++i) tile[16 * d + i] = row[i][d];
    }
  }
}

/// Scores to softmax numerators in place; lanes from n to the end of the last tile become 0.
TEMPER_LANES MaxSum SoftmaxLanes(float* s, int n, float scale) {
  const Lanes factor = Broadcast(scale);
  const Lanes lowest = Broadcast(-__builtin_inff());
  Lanes most = lowest;
  for (int j = 0; j < n; j += 16) {
    Lanes x = Mul(factor, Load(s + j));
    if (n - j < 16) x = Select(FirstLanes(n - j), x, lowest);
    Store(s + j, x);
    most = Max(x, most);
  }
  const float max = TreeMax(most);
  const Lanes shift = Broadcast(max);
  Lanes sum = Zero();
  for (int j = 0; j < n; j += 16) {
    const Lanes p = Exp(Sub(Load(s + j), shift));  // a masked lane: Exp(-inf) = 0
    Store(s + j, p);
    sum = Add(sum, p);
  }
  return {max, TreeSum(sum)};
}

/// R probability rows times the keys' latent columns [column, column + 16): out[r * ldo + lane].
/// Row r sums count[r] keys, not one more: a key that it can't see might not be finite.
template <int R, bool kWhole>
void ValueTile(const float* const* key, const int* count, const float* p, std::int64_t ldp,
               int column, int columns, float* out, std::int64_t ldo) {
  int least = count[0], most = count[0];
  for (int r = 1; r < R; ++r) {
    least = std::min(least, count[r]);
    most = std::max(most, count[r]);
  }
  // Masked stores are slow on some processors, so whole columns do without.
  const Mask mask = FirstLanes(columns);
  const auto value = [=](int j) {
    return kWhole ? Load(key[j] + column) : Load(key[j] + column, mask);
  };
  Lanes total[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) total[r] = Zero();
  for (int k0 = 0; k0 < most; k0 += kBlock) {
    Lanes sum[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) sum[r] = Zero();
    const int end = std::min(k0 + kBlock, most), shared = std::min(end, least);
    int j = k0;
    for (; j < shared; ++j) {
      const Lanes v = value(j);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sum[r] = Fma(v, Broadcast(p[r * ldp + j]), sum[r]);
    }
    for (; j < end; ++j) {
      const Lanes v = value(j);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        if (j < count[r]) sum[r] = Fma(v, Broadcast(p[r * ldp + j]), sum[r]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) total[r] = Add(total[r], sum[r]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    if constexpr (kWhole) {
      Store(out + r * ldo, total[r]);
    } else {
      Store(out + r * ldo, total[r], mask);
    }
  }
}

constexpr int kValueRows = 6;
constexpr int kScoreRows = 8;  // rows whose scores are computed up to the longest of them

template <bool kWhole>
constexpr decltype(&ValueTile<1, kWhole>) kValueTile[kValueRows + 1] = {nullptr,
                                                                        ValueTile<1, kWhole>,
                                                                        ValueTile<2, kWhole>,
                                                                        ValueTile<3, kWhole>,
                                                                        ValueTile<4, kWhole>,
                                                                        ValueTile<5, kWhole>,
                                                                        ValueTile<6, kWhole>};

void Values(int rows, const float* const* key, const int* count, const float* p, std::int64_t ldp,
            int latent, float* out) {
  int column = 0;
  for (; column + 16 <= latent; column += 16) {
    kValueTile<true>[rows](key, count, p, ldp, column, 16, out + column, latent);
  }
  if (column < latent) {
    kValueTile<false>[rows](key, count, p, ldp, column, latent - column, out + column, latent);
  }
}

/// Merges a split of one head: part [latent] into o [latent], its maximum and sum into those
/// returned.
TEMPER_LANES MaxSum Merge(const float* part, MaxSum split, int latent, float* o, MaxSum all) {
  const float max = all.max < split.max ? split.max : all.max;
  const Lanes both =
      Exp(Select(FirstLanes(1), Broadcast(all.max - max), Broadcast(split.max - max)));
  alignas(64) float e[16];
  Store(e, both);
  const Lanes e_old = Broadcast(e[0]), e_new = Broadcast(e[1]);
  ForLanes(latent, [&](int d, auto load, auto store) {
    store(o + d, Fma(load(part + d), e_new, Mul(load(o + d), e_old)));
  });
  alignas(64) float sum[16];
  Store(sum, Fma(Broadcast(split.sum), e_new, Mul(Broadcast(all.sum), e_old)));
  return {max, sum[0]};
}

/// Scratch of a block, cut into its arrays.
struct AttentionArrays {
  float* rows;   // [kSplit][dim] keys that the cache doesn't hold as floats
  float* tile;   // [16][dim][16]
  float* score;  // [pairs][kSplit]
  float* part;   // [kValueRows][latent]
  float* max;    // [pairs]
  float* sum;    // [pairs]
};

/// `pairs` query heads from pair0 on, over the `keys` keys from position `first` on: all the work
/// of a tile.
TEMPER_LANES void AttendTile(const AttentionBlock& b, const AttentionArrays& a,
                             const float* const* key, int pair0, int pairs, int first, float* p,
                             int ld) {
  int count[kValueRows];
  MaxSum split[kValueRows];
  for (int i = 0; i < pairs; ++i) {
    count[i] = std::min(b.rows[(pair0 + i) / b.heads].count - first, kSplit);
    split[i] = SoftmaxLanes(p + i * ld, count[i], b.scale);
  }
  float* o = b.o + static_cast<std::int64_t>(pair0) * b.latent;
  Values(pairs, key, count, p, ld, b.latent, first == 0 ? o : a.part);
  for (int i = 0; i < pairs; ++i) {
    float& max = a.max[pair0 + i];
    float& sum = a.sum[pair0 + i];
    const MaxSum all =
        first == 0 ? split[i]
                   : Merge(a.part + i * b.latent, split[i], b.latent, o + i * b.latent, {max, sum});
    max = all.max, sum = all.sum;
  }
}

/// Rows [row, row_end), all with count > first, over the keys from `first` on.
void AttendSplit(const AttentionBlock& b, const AttentionArrays& a, const float* const* key,
                 int row, int row_end, int first) {
  const int dim = b.latent + b.rope;
  int most = 0;
  for (int r = row; r < row_end; ++r) most = std::max(most, b.rows[r].count);
  const int ld = (std::min(most - first, kSplit) + 15) / 16 * 16;
  const int pair0 = row * b.heads, pairs = (row_end - row) * b.heads;
  VectorLinear({{a.tile, ld, dim},
                0,
                ld / 16,
                b.q + static_cast<std::int64_t>(pair0) * dim,
                dim,
                pairs,
                a.score,
                ld});
  // Heads of one row see the same keys: tiles end with a row where a row fills one.
  const int unit = b.heads >= 4 ? b.heads : std::min(pairs, kValueRows / b.heads * b.heads);
  for (int pair = 0; pair < pairs; pair += unit) {
    const int some = std::min(unit, pairs - pair), tiles = (some + kValueRows - 1) / kValueRows;
    for (int t = 0, i = 0; t < tiles; ++t) {
      const int n = (some - i + tiles - t - 1) / (tiles - t);
      AttendTile(b, a, key, pair0 + pair + i, n, first,
                 a.score + static_cast<std::int64_t>(pair + i) * ld, ld);
      i += n;
    }
  }
}

void VectorAttention(const AttentionBlock& b) {
  const int dim = b.latent + b.rope, pairs = b.m * b.heads;
  int most = 0;
  for (int r = 0; r < b.m; ++r) most = std::max(most, b.rows[r].count);
  AttentionArrays a{};
  float* free = b.scratch;
  const int ld = (std::min(most, kSplit) + 15) / 16 * 16;
  a.tile = free, free += static_cast<std::int64_t>(ld) * dim;
  a.rows = free, free += static_cast<std::int64_t>(ld) * dim;
  a.score = free, free += static_cast<std::int64_t>(pairs) * ld;
  a.part = free, free += kValueRows * b.latent;
  a.max = free, free += pairs;
  a.sum = free;
  for (int first = 0; first < most; first += kSplit) {
    const int keys = std::min(most - first, kSplit);
    const float* key[kSplit];
    for (int j = 0; j < keys; ++j) {
      const char* at = static_cast<const char*>(b.rows[0].keys[first + j]) + b.offset;
      if (b.type == CacheType::kF32) {
        key[j] = reinterpret_cast<const float*>(at);
        continue;
      }
      LoadCacheRow(b.type, at, b.latent, b.rope, a.rows + static_cast<std::int64_t>(j) * dim);
      key[j] = a.rows + static_cast<std::int64_t>(j) * dim;
    }
    TransposeKeys(key, keys, dim, a.tile);
    for (int row = 0; row < b.m;) {
      int end = row;
      while (end < b.m && end - row < kScoreRows && b.rows[end].count > first) ++end;
      if (end > row) AttendSplit(b, a, key, row, end, first);
      row = std::max(end, row + 1);
    }
  }
  for (int pair = 0; pair < pairs; ++pair) {
    float* o = b.o + static_cast<std::int64_t>(pair) * b.latent;
    const Lanes sum = Broadcast(a.sum[pair]);
    ForLanes(b.latent, [&](int d, auto load, auto store) { store(o + d, Div(load(o + d), sum)); });
  }
}

}  // namespace
}  // namespace temper::kernels
