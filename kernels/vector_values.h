#pragma once
// The softmax of one row of scores, and values of a few rows straight from the keys. Included as
// vector_linear.h is.
#include <algorithm>
#include <cstdint>

#include "kernels/linear.h"
#include "kernels/variant.h"
#include "kernels/vector_rows.h"

namespace temper::kernels {
namespace {

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

template <bool kWhole>
constexpr decltype(&ValueTile<1, kWhole>) kValueTile[kValueRows + 1] = {nullptr,
                                                                        ValueTile<1, kWhole>,
                                                                        ValueTile<2, kWhole>,
                                                                        ValueTile<3, kWhole>,
                                                                        ValueTile<4, kWhole>,
                                                                        ValueTile<5, kWhole>,
                                                                        ValueTile<6, kWhole>};

}  // namespace
}  // namespace temper::kernels
