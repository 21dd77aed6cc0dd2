#pragma once
// Scored groups as the arrays that the loss takes, and packs of whole samples for the policy.
#include <memory>
#include <vector>

#include "configs/config.h"
#include "learner/core/loss.h"
#include "learner/core/pack.h"
#include "learner/core/service.h"

namespace temper::learner {

/// N = groups * num_generations rows in (group, sample) order, T = the longest completion. Rows
/// that were dropped keep their place with an empty mask and a NaN reward.
struct RolloutBatch {
  int n = 0, t = 0;
  std::vector<const ScoredGroup*> group;      // [N]
  std::vector<const store::RolloutRow*> row;  // [N]
  std::vector<double> rewards;                // [N] soft_overlong in them; NaN: not applicable
  std::vector<float> mask, rollout_logp;      // [N, T]
  std::vector<float> logp, ref_logp,
      entropy;                  // [N, T], filled by the forward; ref_logp empty without a reference
  std::vector<float> old_logp;  // [N, T] of the policy that the batch began with; empty: logp, that
                                // of the one optimizer step
  std::vector<double> advantages;  // [N]
  std::vector<std::vector<std::vector<std::int32_t>>>
      kept;  // [N, length] ids that a token was sampled from; empty: all
  std::vector<std::span<const std::uint16_t>> experts;  // [N] that routers replay; empty: none
  std::vector<bool> measured;  // [N] logp and entropy are of the policy that the batch began with;
                               // empty: all

  bool Live(int i) const { return row[i]->state != "dropped" && !row[i]->ids.empty(); }
  int length(int i) const { return int(row[i]->ids.size()); }
  /// The version of token j of row i.
  std::uint32_t Version(int i, int j) const {
    return row[i]->versions.empty() ? row[i]->version : row[i]->versions[j];
  }
  LossInput Input() const;
};

/// `groups` must outlive the batch. With the shape of a model's routers the rollouts' experts are
/// replayed. Throws std::logic_error where a group has not num_generations samples; UserError
/// naming a rollout whose experts or kept ids were not recorded or do not fit the model.
RolloutBatch MakeBatch(const configs::Grpo& config, const std::vector<ScoredGroup>& groups,
                       const ExpertShape& replayed = {});

/// Rows [first, first + count) as a batch of their own: a mini-batch.
RolloutBatch Slice(const RolloutBatch& batch, int first, int count);

/// Some rows of a batch laid back to back: a group's prompt once, then its completions, each
/// without its last token, which predicts nothing. One target a completion token, in row order.
struct RowPack {
  std::shared_ptr<Pack> pack = std::make_shared<Pack>();
  Targets targets;
  std::vector<int> rows;
  int repeated = 0;  // first tokens of the pack: a prompt that the pack before it has too
  int rank = 0;      // that runs it
};

/// Packs `rows` in order; a new pack begins where one would exceed `tokens`, and where the next of
/// `ranks` parts of about equal tokens begins. A rank may get none.
std::vector<RowPack> PackRows(const RolloutBatch& batch, const std::vector<int>& rows, int tokens,
                              int ranks = 1);

/// reward, completions/*, rewards/NAME/mean, lag/*, mismatch/* (tokens whose version is the
/// learner's; rows that are measured), entropy.
Json BatchMetrics(const configs::Grpo& config, const std::vector<ScoredGroup>& groups,
                  const RolloutBatch& batch, std::uint32_t version);

/// `version` minus the version of the row's oldest token.
std::int64_t Lag(const RolloutBatch& batch, int i, std::uint32_t version);

}  // namespace temper::learner
