#pragma once
// Absorbed attention over Lanes: keys read and transposed once for all rows and heads that share
// them. Included as vector_linear.h is.
#include <algorithm>
#include <cstdint>

#include "kernels/linear.h"
#include "kernels/variant.h"
#include "kernels/vector_keys.h"
#include "kernels/vector_linear.h"
#include "kernels/vector_rows.h"
#include "kernels/vector_values.h"

namespace temper::kernels {
namespace {

constexpr int kFewPairs = 8;   // fewer don't pay for copying the values
constexpr int kTileKeys = 32;  // scored at a time
constexpr int kNearKeys = 16;  // rows whose counts differ by less are scored together

/// A block's scratch, cut into its arrays.
struct AttentionArrays {
  AttentionArrays(const AttentionBlock& b, float* free) {
    const std::int64_t dim = b.latent + b.rope, pairs = b.pairs;
    const auto take = [&free](std::int64_t n) {
      float* p = free;
      free += (n + 15) / 16 * 16;
      return p;
    };
    tile = take(kTileKeys * dim);
    rows = take(kSplit * dim);
    score = take(pairs * kSplit);
    strip = take(kTilePanels * 16 * kSplit);
    part = take(std::max<std::int64_t>(pairs * kTilePanels * 16, kValueRows * b.latent));
    max = take(pairs), sum = take(pairs), e_old = take(pairs), e_new = take(pairs);
  }
  float* tile;   // [2][dim][16]
  float* rows;   // keys as floats where the cache holds others
  float* score;  // [pairs][ld]
  float* strip;  // [kTilePanels][keys][16]
  float* part;   // of a split: [pairs][kTilePanels * 16] or [kValueRows][latent]
  float *max, *sum, *e_old, *e_new;  // [pairs]
};

/// Rows [row, row_end) of a block that share the keys of one split, the `first` one on.
struct Segment {
  Segment(const AttentionBlock& b, const AttentionArrays& a, int row, int row_end, int first)
      : b(b), a(a), row(row), row_end(row_end), first(first) {}

  const AttentionBlock& b;
  const AttentionArrays& a;
  int row, row_end, first;
  int keys = 0;  // the most that a row sees here
  int ld = 0;    // of the scores
  const char* key[kSplit];

  int Count(int r) const { return std::min(b.rows[r].count - first, kSplit); }
  int Pair(int r) const { return std::clamp(r * b.heads - b.first_head, 0, b.pairs); }
  int pairs() const { return Pair(row_end) - Pair(row); }
  float* Score(int pair) const { return a.score + static_cast<std::int64_t>(pair) * ld; }
  float* Out(int pair) const { return b.o + static_cast<std::int64_t>(pair) * b.latent; }

  bool SameCounts() const {
    for (int r = row + 1; r < row_end; ++r) {
      if (Count(r) != Count(row)) return false;
    }
    return true;
  }

  /// Calls body(row, row_end) for runs of rows that near(row, last) joins.
  template <typename Near, typename Body>
  void ForRuns(const Near& near, const Body& body) const {
    for (int r = row; r < row_end;) {
      int end = r + 1;
      while (end < row_end && near(r, end)) ++end;
      body(r, end);
      r = end;
    }
  }
};

/// Scores of all pairs: tiles of keys, each for all rows that see one of them. `value` are the keys
/// as floats, or null where the cache holds others and nobody else needs them.
void Scores(const Segment& s, const KeyReader& reader, const float* const* value) {
  const AttentionBlock& b = s.b;
  const int dim = b.latent + b.rope;
  for (int j0 = 0; j0 < s.keys; j0 += kTileKeys) {
    const int n = std::min(kTileKeys, s.keys - j0);
    const float* row[kTileKeys];
    for (int j = 0; j < n; ++j) {
      row[j] = value != nullptr ? value[j0 + j] : s.a.rows + static_cast<std::int64_t>(j) * dim;
      if (value == nullptr)
        reader.Row(s.key[j0 + j], s.a.rows + static_cast<std::int64_t>(j) * dim);
    }
    TransposeKeys(row, n, dim, s.a.tile);
    const auto near = [&](int r, int last) {
      return std::abs(s.Count(r) - s.Count(last)) < kNearKeys;
    };
    s.ForRuns(near, [&](int r, int end) {
      int most = 0;
      for (int i = r; i < end; ++i) most = std::max(most, s.Count(i));
      if (most <= j0) return;
      const int panels = (std::min(n, most - j0) + 15) / 16, pair = s.Pair(r);
      LinearOf<float>({{s.a.tile, panels * 16, dim},
                       0,
                       panels,
                       b.q + static_cast<std::int64_t>(pair) * dim,
                       dim,
                       s.Pair(end) - pair,
                       s.Score(pair) + j0,
                       s.ld});
    });
  }
}

/// Scores to numerators; the split's maximum and sum join those so far.
void Softmaxes(const Segment& s) {
  const AttentionArrays& a = s.a;
  for (int r = s.row; r < s.row_end; ++r) {
    for (int pair = s.Pair(r); pair < s.Pair(r + 1); ++pair) {
      const MaxSum split = SoftmaxLanes(s.Score(pair), s.Count(r), s.b.scale);
      if (s.first == 0) {
        a.max[pair] = split.max, a.sum[pair] = split.sum;
        continue;
      }
      const float max = a.max[pair] < split.max ? split.max : a.max[pair];
      alignas(64) float e[16], sum[16];
      Store(e,
            Exp(Select(FirstLanes(1), Broadcast(a.max[pair] - max), Broadcast(split.max - max))));
      Store(sum, Fma(Broadcast(split.sum), Broadcast(e[1]),
                     Mul(Broadcast(a.sum[pair]), Broadcast(e[0]))));
      a.max[pair] = max, a.sum[pair] = sum[0], a.e_old[pair] = e[0], a.e_new[pair] = e[1];
    }
  }
}

/// o = fma(part, e_new, o * e_old) over n columns of one pair.
TEMPER_LANES void MergeColumns(const AttentionArrays& a, int pair, const float* part, int n,
                               float* o) {
  const Lanes e_old = Broadcast(a.e_old[pair]), e_new = Broadcast(a.e_new[pair]);
  ForLanes(n, [&](int d, auto load, auto store) {
    store(o + d, Fma(load(part + d), e_new, Mul(load(o + d), e_old)));
  });
}

/// Values of many pairs: strips of columns, copied once, each as a linear layer over the keys.
void StripValues(const Segment& s, const KeyReader& reader) {
  const AttentionBlock& b = s.b;
  for (int c = 0; c < b.latent; c += kTilePanels * 16) {
    const int columns = std::min(kTilePanels * 16, b.latent - c), panels = (columns + 15) / 16;
    for (int p = 0; p < panels; ++p) {
      CopyStrip(reader, s.key, s.keys, c + 16 * p, std::min(16, columns - 16 * p),
                s.a.strip + static_cast<std::int64_t>(p) * s.keys * 16);
    }
    const auto same = [&](int r, int last) { return s.Count(r) == s.Count(last); };
    s.ForRuns(same, [&](int r, int end) {
      const int pair = s.Pair(r), pairs = s.Pair(end) - pair, keys = s.Count(r);
      const bool direct = s.first == 0;
      float* y = direct ? s.Out(pair) + c : s.a.part;
      const std::int64_t ldy = direct ? b.latent : kTilePanels * 16;
      const LinearBlock block{{s.a.strip, columns, keys}, 0, panels, nullptr, 0, pairs, y, ldy};
      for (int k0 = 0; k0 < keys; k0 += kBlock) {
        const float* w = s.a.strip + k0 * 16;
        const float* p = s.Score(pair) + k0;
        const std::int64_t stride = std::int64_t{s.keys} * 16;
        if (panels == kTilePanels) {
          LinearPanels<float, kTilePanels, false>(block, w, stride, p, s.ld, 0, k0);
        } else {
          LinearPanels<float, 1, false>(block, w, stride, p, s.ld, 0, k0);
        }
      }
      for (int i = 0; i < pairs && !direct; ++i) {
        MergeColumns(s.a, pair + i, s.a.part + i * kTilePanels * 16, columns, s.Out(pair + i) + c);
      }
    });
  }
}

/// Values of `n` pairs from `pair` on, straight from the keys.
void ValueTiles(const Segment& s, const float* const* value, const int* count, int pair, int n) {
  const int latent = s.b.latent;
  const float* p = s.Score(pair);
  float* out = s.first == 0 ? s.Out(pair) : s.a.part;
  int c = 0;
  for (; c + 16 <= latent; c += 16)
    kValueTile<true>[n](value, count, p, s.ld, c, 16, out + c, latent);
  if (c < latent) kValueTile<false>[n](value, count, p, s.ld, c, latent - c, out + c, latent);
  for (int r = 0; r < n && s.first > 0; ++r) {
    MergeColumns(s.a, pair + r, out + static_cast<std::int64_t>(r) * latent, latent,
                 s.Out(pair + r));
  }
}

/// Values of a few pairs. Heads of one row see the same keys: tiles end with a row where a row
/// comes near filling one.
void FewValues(const Segment& s, const float* const* value) {
  int count[kValueRows];
  if (s.b.heads >= 4) {
    for (int r = s.row; r < s.row_end; ++r) {
      std::fill_n(count, kValueRows, s.Count(r));
      const int pair = s.Pair(r);
      RowTiles(s.Pair(r + 1) - pair, kValueRows).ForEach([&](int i, int n) {
        ValueTiles(s, value, count, pair + i, n);
      });
    }
    return;
  }
  int pair = s.Pair(s.row), n = 0;
  for (int r = s.row; r < s.row_end; ++r) {
    for (int left = s.Pair(r + 1) - s.Pair(r); left > 0; --left) {
      count[n++] = s.Count(r);
      if (n < kValueRows) continue;
      ValueTiles(s, value, count, pair, n);
      pair += n, n = 0;
    }
  }
  if (n > 0) ValueTiles(s, value, count, pair, n);
}

/// All rows of the segment over its keys, which are those of the leader.
void AttendSegment(Segment& s, const AttentionRow& leader) {
  const AttentionBlock& b = s.b;
  const KeyReader reader{b.type, b.latent, b.rope};
  // Rows of few heads that see different numbers of keys would be layers of a few rows each.
  const bool ragged = b.heads < kFewPairs && !s.SameCounts();
  const bool few = s.pairs() < kFewPairs || ragged;
  s.keys = std::min(leader.count - s.first, kSplit);
  s.ld = (s.keys + 15) / 16 * 16;
  const float* value[kSplit];
  for (int j = 0; j < s.keys; ++j) {
    s.key[j] = static_cast<const char*>(leader.keys[s.first + j]) + b.offset;
    value[j] = reader.Floats(s.key[j]);
    if (few && b.type != CacheType::kF32) {
      float* row = s.a.rows + static_cast<std::int64_t>(j) * (b.latent + b.rope);
      reader.Row(s.key[j], row);
      value[j] = row;
    }
  }
  const bool floats = few || b.type == CacheType::kF32;
  Scores(s, reader, floats ? value : nullptr);
  Softmaxes(s);
  if (few) {
    FewValues(s, value);
  } else {
    StripValues(s, reader);
  }
}

void VectorAttention(const AttentionBlock& b) {
  const AttentionArrays arrays(b, b.scratch);
  const int rows = (b.first_head + b.pairs + b.heads - 1) / b.heads;
  int most = 0;
  for (int r = 0; r < rows; ++r) most = std::max(most, b.rows[r].count);
  for (int first = 0; first < most; first += kSplit) {
    for (int row = 0; row < rows;) {
      // The row that sees most so far has all keys of the others.
      int end = row, leader = row;
      for (; end < rows && b.rows[end].count > first; ++end) {
        if (!SharesKeys(b.rows[leader], b.rows[end], first)) break;
        if (b.rows[end].count > b.rows[leader].count) leader = end;
      }
      if (end > row) {
        Segment segment(b, arrays, row, end, first);
        AttendSegment(segment, b.rows[leader]);
      }
      row = std::max(end, row + 1);
    }
  }
  for (int pair = 0; pair < b.pairs; ++pair) {
    float* o = b.o + static_cast<std::int64_t>(pair) * b.latent;
    const Lanes sum = Broadcast(arrays.sum[pair]);
    ForLanes(b.latent, [&](int d, auto load, auto store) { store(o + d, Div(load(o + d), sum)); });
  }
}

}  // namespace
}  // namespace temper::kernels
