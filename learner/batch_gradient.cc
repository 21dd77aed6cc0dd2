#include "learner/batch_gradient.h"

#include <algorithm>

#include "learner/core/stopwatch.h"

namespace temper::learner {

namespace {

using Cells = std::vector<float>;  // [N, T] of a batch

/// The values of a pack's targets, put where the batch keeps them.
void PutTargets(const RolloutBatch& batch, const RowPack& pack, const torch::Tensor& values,
                Cells* to) {
  const float* from = values.data_ptr<float>();
  for (int i : pack.rows) {
    std::copy_n(from, batch.length(i), to->begin() + std::int64_t(i) * batch.t);
    from += batch.length(i);
  }
}

/// The cells of a pack's targets; `cells` holds the pack's rows alone, T apart.
torch::Tensor TakeTargets(const RolloutBatch& batch, const RowPack& pack, const Cells& cells) {
  torch::Tensor out = torch::empty({pack.targets.count()});
  float* to = out.data_ptr<float>();
  for (std::size_t k = 0; k < pack.rows.size(); ++k) {
    to = std::copy_n(cells.data() + k * std::size_t(batch.t), batch.length(pack.rows[k]), to);
  }
  return out;
}

/// The pack's rows as a batch of their own.
RolloutBatch Part(const RolloutBatch& batch, const RowPack& pack) {
  RolloutBatch part;
  part.n = int(pack.rows.size());
  part.t = batch.t;
  const auto take = [&](const Cells& from, Cells* to) {
    if (from.empty()) return;
    for (int i : pack.rows) {
      to->insert(to->end(), from.begin() + std::int64_t(i) * batch.t,
                 from.begin() + std::int64_t(i + 1) * batch.t);
    }
  };
  take(batch.mask, &part.mask);
  take(batch.logp, &part.logp);
  take(batch.rollout_logp, &part.rollout_logp);
  take(batch.ref_logp, &part.ref_logp);
  for (int i : pack.rows) part.advantages.push_back(batch.advantages[i]);
  return part;
}

class Run {
 public:
  Run(const configs::Grpo& config, Policy& policy, RolloutBatch* batch, int micro_tokens)
      : config_(config), policy_(policy), batch_(*batch), micro_tokens_(micro_tokens) {}

  void Reference(Policy& reference, const std::vector<int>& rows) {
    Stopwatch watch;
    batch_.ref_logp.assign(batch_.logp.size(), 0.0f);
    for (const RowPack& pack : PackRows(batch_, rows, micro_tokens_)) {
      Policy::Request request;
      request.temperature = float(config_.temperature);
      request.gradients = request.entropy = false;
      PutTargets(batch_, pack, reference.Forward(pack.pack, pack.targets, request).logp,
                 &batch_.ref_logp);
    }
    out_.forward_seconds += watch.Lap();
  }

  void Still(const std::vector<int>& rows) {
    for (const RowPack& pack : PackRows(batch_, rows, micro_tokens_)) Forward(pack, false);
  }

  void Live(const std::vector<int>& rows, const LossTotals& totals) {
    const std::vector<RowPack> packs = PackRows(batch_, rows, micro_tokens_);
    std::int64_t mtp_tokens = 0;
    for (const RowPack& pack : packs) {
      for (std::int32_t row : pack.targets.row) mtp_tokens += pack.pack->position[row] >= 1;
    }
    for (const RowPack& pack : packs) Backward(pack, Forward(pack, true), totals, mtp_tokens);
  }

  BatchGradient& out() { return out_; }

 private:
  Policy::Result Forward(const RowPack& pack, bool gradients) {
    Stopwatch watch;
    Policy::Request request;
    request.temperature = float(config_.temperature);
    request.gradients = gradients;
    request.mtp = gradients && config_.mtp_loss_scale > 0;
    Policy::Result result = policy_.Forward(pack.pack, pack.targets, request);
    PutTargets(batch_, pack, result.logp.detach(), &batch_.logp);
    PutTargets(batch_, pack, result.entropy.detach(), &batch_.entropy);
    out_.loads.Add(result);
    out_.forward_seconds += watch.Lap();
    return result;
  }

  void Backward(const RowPack& pack, const Policy::Result& result, const LossTotals& totals,
                std::int64_t mtp_tokens) {
    Stopwatch watch;
    const RolloutBatch part = Part(batch_, pack);
    const LossOutput loss = PolicyLoss(config_, part.Input(), part.advantages, totals);
    Tensors from{result.logp}, with{TakeTargets(batch_, pack, loss.grad)};
    if (config_.entropy_coef != 0) {
      from.push_back(result.entropy);
      with.push_back(TakeTargets(batch_, pack, part.mask) *
                     (-config_.entropy_coef / std::max(1.0, totals.tokens)));
    }
    if (result.mtp_logp.defined()) {
      from.push_back(result.mtp_logp);
      with.push_back(
          torch::full_like(result.mtp_logp, -config_.mtp_loss_scale / double(mtp_tokens)));
      for (std::int64_t i = 0; i < result.mtp_logp.numel(); ++i) {
        out_.mtp_loss -= double(result.mtp_logp.data_ptr<float>()[i]) / double(mtp_tokens);
      }
    }
    torch::autograd::backward(from, with);
    out_.backward_seconds += watch.Lap();
  }

  const configs::Grpo& config_;
  Policy& policy_;
  RolloutBatch& batch_;
  const int micro_tokens_;
  BatchGradient out_;
};

double MeanEntropy(const RolloutBatch& batch, const LossTotals& totals) {
  double sum = 0;
  for (std::size_t i = 0; i < batch.mask.size(); ++i) sum += batch.mask[i] * batch.entropy[i];
  return sum / std::max(1.0, totals.tokens);
}

}  // namespace

BatchGradient AddBatchGradient(const configs::Grpo& config, Policy& policy, Policy* reference,
                               RolloutBatch* batch, int micro_tokens) {
  Run run(config, policy, batch, micro_tokens);
  std::vector<int> all, live, still;
  for (int i = 0; i < batch->n; ++i) {
    if (batch->Live(i)) all.push_back(i);
  }
  if (reference) run.Reference(*reference, all);
  // The KL in the reward is that of the policy that sampled.
  LossInput sampled = batch->Input();
  sampled.old_logp = batch->rollout_logp;
  batch->advantages =
      Advantages(config, PenalizeRewards(config, batch->rewards, sampled), batch->mask, batch->t);

  const bool pulled = (config.beta > 0 && !config.kl_in_reward) || config.entropy_coef != 0;
  for (int i : all) (pulled || batch->advantages[i] != 0 ? live : still).push_back(i);
  const LossTotals totals = CountTotals(batch->Input());
  run.Live(live, totals);
  run.Still(still);
  BatchGradient out = std::move(run.out());
  out.loss = PolicyLoss(config, batch->Input(), batch->advantages, totals);
  if (config.entropy_coef != 0) out.loss.loss -= config.entropy_coef * MeanEntropy(*batch, totals);
  return out;
}

}  // namespace temper::learner
