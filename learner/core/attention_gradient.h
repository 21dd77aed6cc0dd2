#pragma once
// The gradient of causal softmax attention over the sequences of a pack, in the naive form. No
// LibTorch.
#include <cstdint>

#include "kernels/thread_pool.h"
#include "learner/core/pack.h"

namespace temper::learner {

/// For each sequence, head and query i: p = softmax over j <= i of scale <q_i, k_j>, o_i = sum_j
/// p_j v_j, where k_j is the head's `nope` floats and then the `rope` floats that all heads share.
/// j counts positions: a branch's queries see their trunk's keys too.
///
///   q   [T][heads][nope + rope]  rotated      kv  [T][heads][nope + value]  key and value of a
///   head shared                       k_rope of token t at shared + t * ld_shared, rotated g
///   [T][heads][value]        d loss / d o d_q like q, d_kv like kv, d_shared [T][heads][rope] (a
///   head each): overwritten
///
/// A trunk with its branches and a head is one thread's work. Queries go 64 at a time, each against all keys it
/// sees: memory O(length * 64) a thread, 5 products of 2 * length^2 / 2 * dim flop. Sums over keys
/// and queries have one fixed order.
struct AttentionGradientArgs {
  const Pack* pack = nullptr;
  int heads = 0, nope = 0, rope = 0, value = 0;
  float scale = 0;
  const float* q = nullptr;
  const float* kv = nullptr;
  const float* shared = nullptr;
  std::int64_t ld_shared = 0;
  const float* g = nullptr;
  float* d_q = nullptr;
  float* d_kv = nullptr;
  float* d_shared = nullptr;
};

void AttentionGradient(const AttentionGradientArgs& args, kernels::ThreadPool& pool);

}  // namespace temper::learner
