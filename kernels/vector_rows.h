#pragma once
// Row operations and the softmax of the vocabulary over Lanes. Included as vector_linear.h is.
#include <cstdint>

#include "kernels/variant.h"

namespace temper::kernels {
namespace {

/// Calls body(offset, mask, whole) for each 16 entries of n; `whole` is a constant in each of its
/// two uses.
template <typename Body>
TEMPER_LANES void ForLanes(int n, const Body& body) {
  int i = 0;
  for (; i + 16 <= n; i += 16)
    body(
        i, [](const float* p) { return Load(p); }, [](float* p, Lanes a) { Store(p, a); });
  if (i < n) {
    const Mask mask = FirstLanes(n - i);
    body(
        i, [mask](const float* p) { return Load(p, mask); },
        [mask](float* p, Lanes a) { Store(p, a, mask); });
  }
}

void VectorRmsNorm(const float* x, const float* weight, float eps, int d, float* y) {
  Lanes squares = Zero();
  ForLanes(d, [&](int i, auto load, auto) {
    const Lanes a = load(x + i);
    squares = Fma(a, a, squares);
  });
  const float mean = TreeSum(squares) / static_cast<float>(d);
  const Lanes scale = Broadcast(1.0f / __builtin_sqrtf(mean + eps));
  ForLanes(d, [&](int i, auto load, auto store) {
    store(y + i, Mul(Mul(load(x + i), scale), load(weight + i)));
  });
}

void VectorRope(float* x, int heads, std::int64_t ldh, int dim, const float* cos_sin) {
  for (int h = 0; h < heads; ++h) {
    float* head = x + h * ldh;
    ForLanes(dim, [&](int i, auto load, auto store) {
      store(head + i, Rotate(load(head + i), load(cos_sin + i)));
    });
  }
}

TEMPER_LANES Lanes SigmoidLanes(Lanes x) {
  const Lanes one = Broadcast(1.0f);
  return Div(one, Add(one, Exp(Negate(x))));
}

void VectorSwiGlu(const float* gate, const float* up, int d, float* y) {
  ForLanes(d, [&](int i, auto load, auto store) {
    const Lanes g = load(gate + i);
    store(y + i, Mul(Mul(g, SigmoidLanes(g)), load(up + i)));
  });
}

void VectorSigmoid(const float* x, int n, float* y) {
  ForLanes(n, [&](int i, auto load, auto store) { store(y + i, SigmoidLanes(load(x + i))); });
}

/// x / 1 is x: the division is skipped where it can't change a bit.
TEMPER_LANES Lanes Scale(Lanes x, float temperature, Lanes divisor) {
  return temperature == 1.0f ? x : Div(x, divisor);
}

MaxSum VectorChunkMaxSum(const float* logits, int n, float temperature) {
  const Lanes divisor = Broadcast(temperature);
  const Lanes lowest = Broadcast(-__builtin_inff());
  Lanes most = lowest;
  const int whole = n / 16 * 16, rest = n - whole;
  const Mask mask = FirstLanes(rest);
  for (int i = 0; i < whole; i += 16) most = Max(Load(logits + i), most);
  if (rest > 0) most = Max(Select(mask, Load(logits + whole, mask), lowest), most);
  // Division by a positive number keeps the order, so the largest quotient is the largest's
  // quotient.
  alignas(64) float quotient[16];
  Store(quotient, Scale(Broadcast(TreeMax(most)), temperature, divisor));
  const float max = quotient[0];
  const Lanes shift = Broadcast(max);
  Lanes sum = Zero();
  for (int i = 0; i < whole; i += 16) {
    sum = Add(sum, Exp(Sub(Scale(Load(logits + i), temperature, divisor), shift)));
  }
  if (rest > 0) {
    const Lanes p = Exp(Sub(Scale(Load(logits + whole, mask), temperature, divisor), shift));
    sum = Add(sum, Select(mask, p, Zero()));
  }
  return {max, TreeSum(sum)};
}

float VectorChunkPLogP(const float* logits, int n, float temperature, float lse) {
  const Lanes divisor = Broadcast(temperature), shift = Broadcast(lse);
  Lanes sum = Zero();
  for (int i = 0; i < n; i += 16) {
    const Mask mask = FirstLanes(n - i);
    const Lanes logp = Sub(Scale(Load(logits + i, mask), temperature, divisor), shift);
    sum = Select(mask, Fma(Exp(logp), logp, sum), sum);
  }
  return TreeSum(sum);
}

void VectorProbabilities(const float* logits, int n, float temperature, float lse, float* x,
                         float* p) {
  const Lanes divisor = Broadcast(temperature), shift = Broadcast(lse);
  ForLanes(n, [&](int i, auto load, auto store) {
    const Lanes scaled = Scale(load(logits + i), temperature, divisor);
    if (x != nullptr) store(x + i, scaled);
    store(p + i, Exp(Sub(scaled, shift)));
  });
}

}  // namespace
}  // namespace temper::kernels
