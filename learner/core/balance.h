#pragma once
// The balance losses of DeepSeek-V2 and V3, which pull the router towards even loads.
#include <cstdint>

#include "kernels/router.h"
#include "learner/core/pack.h"

namespace temper::learner {

/// Factors of the three losses and the number of sequences in the optimizer step.
struct BalanceWeights {
  double expert = 0, device = 0, communication = 0;
  double sequences = 1;

  bool wanted() const { return expert > 0 || device > 0 || communication > 0; }
};

/// For each sequence that ends (a branch with its trunk) of T tokens, with s the scores of its
/// tokens (softmax, or sigmoid over its sum), E experts in D groups (devices), k chosen experts and
/// M groups a token:
///   expert         sum_e f_e P_e, f_e = E / (k T) * tokens that chose e, P_e = mean over tokens of
///   s_e device         sum_d f'_d P'_d, f'_d = mean of f_e over the group, P'_d = sum of P_e over
///   the group communication  sum_d f''_d P'_d, f''_d = D / (M T) * tokens with an expert in d
/// Gives the sum over the sequences, weighted, / `sequences`; adds its gradient, in which the f are
/// constants, to d_logits [T', E] unless that is null.
///   ids [T', k] chosen, logits [T', E] of the router
/// Source DeepSeek-V2 (arXiv 2405.04434) 2.2.3, eq. 23 to 31; a sequence at a time as V3 (arXiv
/// 2412.19437) eq. 17 to 20 and the published model's seq_aux.
double AddBalanceGradient(const BalanceWeights& weights, const kernels::RouterShape& shape,
                          const Pack& pack, const std::int32_t* ids, const float* logits,
                          float* d_logits);

}  // namespace temper::learner
