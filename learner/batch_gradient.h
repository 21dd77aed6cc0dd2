#pragma once
// One batch of rollouts through policy, loss and backward: the gradient of a GRPO step.
#include "learner/communicator.h"
#include "learner/policy.h"
#include "learner/rollout_batch.h"
#include "learner/update.h"

namespace temper::learner {

// Tokens of one forward and backward: activations of a micro-batch stay near the last cache level.
// Part of what makes a run repeatable to the bit, so no setting.
inline constexpr int kMicroTokens = 8192;

struct BatchGradient {
  LossOutput loss;                     // of the whole batch, with its metrics
  ExpertLoads loads;                   // of every forwarded token
  double mtp_loss = 0;                 // mean of -log p; 0 where the MTP layer is not trained
  std::vector<double> mtp_acceptance;  // an MTP layer's, see MtpLoss
  double balance_loss = 0;
  double forward_seconds = 0, backward_seconds = 0;
};

/// What a batch needs before its first optimizer step.
struct Preparation {
  std::uint32_t version = 0;  // of the policy
  bool same_bits = true;      // a rollout of that version has the policy's own log-probs
  int micro_tokens = kMicroTokens;
  Communicator* ranks = nullptr;  // that share the work; all have the same batch. null: alone
};

/// Fills ref_logp (`reference` may be null where beta is 0), advantages and, where the batch takes
/// several optimizer steps, old_logp: the rollout's own log-probs where its version and bits are
/// the policy's, else those of a forward. Returns the seconds of its forwards.
double PrepareBatch(const configs::Grpo& config, Policy& policy, Policy* reference,
                    const Preparation& preparation, RolloutBatch* batch);

/// Fills the batch's logp and entropy and adds d loss / d weight to the policy's gradients. Every
/// row is forwarded (its mismatch is a metric); those whose gradient is zero whatever the log-probs
/// are (advantage 0 and no KL or entropy term) are not backwarded. The denominators are the
/// batch's, so that any `micro_tokens` gives the same gradient up to rounding. Of several ranks
/// each adds the gradient of its packs alone; all else is the whole batch's on every rank.
BatchGradient AddBatchGradient(const configs::Grpo& config, Policy& policy, RolloutBatch* batch,
                               const Preparation& preparation = {});

}  // namespace temper::learner
