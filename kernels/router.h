#pragma once
// The sigmoid router of DeepSeek-V3 (topk_method noaux_tc), with a fixed tie rule.
#include <cstdint>

#include "kernels/thread_pool.h"

namespace temper::kernels {

struct RouterShape {
  int experts = 0;
  int top_k = 0;
  int groups = 1;       // n_group, divides experts
  int topk_groups = 1;  // groups kept
  bool normalize = true;
  float scale = 1.0f;  // routed_scaling_factor
};

/// s = Sigmoid(logits); b = s + bias chooses only. A group's score is the sum of its two largest b
/// (of its only one where a group has one); the topk_groups best groups stay, others are -inf; then
/// the top_k best b. Ties go to the lower index, everywhere.
/// weight = s / (sum of the chosen s, ascending id, + 1e-20) if normalize, then * scale.
///
///   logits [m, experts], row stride ld    bias [experts]
///   ids    [m, top_k] ascending            weight [m, top_k] same order
///   forced [m, top_k] ascending ids to use instead of choosing (routing replay), or null
/// Source transformers DeepseekV3TopkRouter; DeepSeek-V3 (arXiv 2412.19437) sec. 2.1.2.
void RouteNoauxTc(const float* logits, std::int64_t ld, const float* bias, const RouterShape& shape,
                  int m, const std::int32_t* forced, std::int32_t* ids, float* weight,
                  ThreadPool& pool);

}  // namespace temper::kernels
