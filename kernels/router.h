#pragma once
// The routers of DeepSeek-V3 (noaux_tc) and V2 (greedy, group_limited_greedy), with a fixed tie
// rule.
#include <cstdint>

#include "kernels/thread_pool.h"

namespace temper::kernels {

enum class RouterMethod { kNoauxTc, kGreedy, kGroupLimitedGreedy };

struct RouterShape {
  int experts = 0;
  int top_k = 0;
  int groups = 1;       // n_group, divides experts
  int topk_groups = 1;  // groups kept
  bool normalize = true;
  float scale = 1.0f;  // routed_scaling_factor
  RouterMethod method = RouterMethod::kNoauxTc;
};

/// Scores s: noaux_tc Sigmoid(logits); else the softmax, Exp(x - max) / sum (ascending).
/// Choice by b: noaux_tc s + bias; else s. With groups the topk_groups best stay, others are -inf:
/// a noaux_tc group's score is the sum of its two largest b (of its only one where it has one),
/// that of group_limited_greedy the largest; greedy knows no groups. Then the top_k best b. Ties go
/// to the lower index, everywhere. weight = s / (sum of the chosen s, ascending id, + 1e-20) if
/// normalize, then * scale.
///
///   logits [m, experts], row stride ld    bias [experts], noaux_tc only
///   ids    [m, top_k] ascending            weight [m, top_k] same order
///   forced [m, top_k] ascending ids to use instead of choosing (routing replay), or null
/// Source transformers DeepseekV3TopkRouter, DeepseekV2Moe; DeepSeek-V3 (arXiv 2412.19437) sec.
/// 2.1.2, DeepSeek-V2 (arXiv 2405.04434) sec. 2.2.
void Route(const float* logits, std::int64_t ld, const float* bias, const RouterShape& shape, int m,
           const std::int32_t* forced, std::int32_t* ids, float* weight, ThreadPool& pool);

/// The scores s of one row.
void RouterScores(RouterMethod method, const float* logits, int experts, float* s);

}  // namespace temper::kernels
