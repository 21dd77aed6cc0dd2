#include "learner/batch_gradient.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "learner/core/stopwatch.h"
#include "learner/mtp_loss.h"

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

/// Where the cells of the rows that a rank ran are known to it alone: gives all to everyone.
void ShareCells(const RolloutBatch& batch, const std::vector<RowPack>& packs,
                const std::vector<Cells*>& all, Communicator& ranks) {
  if (ranks.alone()) return;
  const auto each = [&](int rank, auto use) {
    for (const RowPack& pack : packs) {
      for (int i : pack.rows) {
        for (Cells* cells : all) {
          if (pack.rank != rank) break;
          use(cells->data() + std::int64_t(i) * batch.t, std::size_t(batch.length(i)) * 4);
        }
      }
    }
  };
  std::string mine;
  each(ranks.rank(), [&](const float* from, std::size_t bytes) {
    mine.append(reinterpret_cast<const char*>(from), bytes);
  });
  const std::vector<std::string> texts = ranks.Gather(mine);
  for (int r = 0; r < ranks.size(); ++r) {
    const char* from = texts[std::size_t(r)].data();
    each(r, [&](float* to, std::size_t bytes) {
      std::memcpy(to, from, bytes);
      from += bytes;
    });
  }
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
  take(batch.old_logp, &part.old_logp);
  for (int i : pack.rows) part.advantages.push_back(batch.advantages[i]);
  return part;
}

class Run {
 public:
  Run(const configs::Grpo& config, Policy& policy, RolloutBatch* batch,
      const Preparation& preparation)
      : config_(config),
        policy_(policy),
        batch_(*batch),
        preparation_(preparation),
        ranks_(preparation.ranks ? *preparation.ranks : alone_),
        mtp_(policy.config(), config.mtp_loss_scale),
        balance_{config.expert_balance_loss, config.device_balance_loss,
                 config.communication_balance_loss, double(std::max(1, batch->n))} {}

  /// The log-probs of `policy` without gradients; with `entropy` the batch's too.
  void Measure(Policy& policy, const std::vector<int>& rows, Cells* logp, bool entropy) {
    Stopwatch watch;
    const std::vector<RowPack> packs = Packs(rows);
    for (const RowPack& pack : packs) {
      if (pack.rank != ranks_.rank()) continue;
      if (&policy != &policy_) pack.pack->experts.clear();  // a reference chooses for itself
      Policy::Request request;
      request.gradients = false;
      request.entropy = entropy;
      const Policy::Result result = Forward(policy, pack, request);
      PutTargets(batch_, pack, result.logp, logp);
      if (entropy) PutTargets(batch_, pack, result.entropy, &batch_.entropy);
    }
    std::vector<Cells*> cells = {logp};
    if (entropy) cells.push_back(&batch_.entropy);
    ShareCells(batch_, packs, cells, ranks_);
    out_.forward_seconds += watch.Lap();
  }

  /// `live` rows are backwarded, `still` ones not.
  void Train(const std::vector<int>& live, const std::vector<int>& still,
             const LossTotals& totals) {
    const std::vector<RowPack> backward = Packs(live), forward = Packs(still);
    for (const RowPack& pack : backward) mtp_.Count(*pack.pack, pack.targets);
    for (const RowPack& pack : backward) {
      if (pack.rank == ranks_.rank()) Backward(pack, Forward(pack, true), totals);
    }
    for (const RowPack& pack : forward) {
      if (pack.rank == ranks_.rank()) Forward(pack, false);
    }
    for (const std::vector<RowPack>* packs : {&backward, &forward})
      ShareCells(batch_, *packs, {&batch_.logp, &batch_.entropy}, ranks_);
    out_.loads.Sum(ranks_);
    std::vector<double> balance = {out_.balance_loss};
    ranks_.Sum(&balance);
    out_.balance_loss = balance[0];
    mtp_.Sum(ranks_);
    out_.mtp_loss = mtp_.mean();
    out_.mtp_acceptance = mtp_.acceptance();
  }

  BatchGradient& out() { return out_; }

 private:
  std::vector<RowPack> Packs(const std::vector<int>& rows) const {
    return PackRows(batch_, rows, preparation_.micro_tokens, ranks_.size());
  }

  /// Log-probs of the pack's targets, of the kept tokens alone where sampling was truncated.
  Policy::Result Forward(Policy& policy, const RowPack& pack, Policy::Request request) {
    request.temperature = float(config_.temperature);
    if (batch_.kept.empty()) return policy.Forward(pack.pack, pack.targets, request);
    std::vector<std::vector<std::int32_t>> kept;
    for (int i : pack.rows) kept.insert(kept.end(), batch_.kept[i].begin(), batch_.kept[i].end());
    request.forms.kept = std::make_shared<const decltype(kept)>(std::move(kept));
    return policy.Forward(pack.pack, pack.targets, request);
  }

  Policy::Result Forward(const RowPack& pack, bool gradients) {
    Stopwatch watch;
    Policy::Request request;
    request.gradients = gradients;
    request.mtp = gradients && mtp_.wanted();
    if (gradients) request.balance = balance_;
    Policy::Result result = Forward(policy_, pack, request);
    PutTargets(batch_, pack, result.logp.detach(), &batch_.logp);
    PutTargets(batch_, pack, result.entropy.detach(), &batch_.entropy);
    out_.loads.Add(*pack.pack, result.routing, result.mtp_routing, pack.repeated);
    for (const Routing& layer : result.routing) out_.balance_loss += layer.balance_loss;
    out_.forward_seconds += watch.Lap();
    return result;
  }

  void Backward(const RowPack& pack, const Policy::Result& result, const LossTotals& totals) {
    Stopwatch watch;
    const RolloutBatch part = Part(batch_, pack);
    const LossOutput loss = PolicyLoss(config_, part.Input(), part.advantages, totals);
    Tensors from{result.logp}, with{TakeTargets(batch_, pack, loss.grad)};
    if (config_.entropy_coef != 0) {
      from.push_back(result.entropy);
      with.push_back(TakeTargets(batch_, pack, part.mask) *
                     (-config_.entropy_coef / std::max(1.0, totals.tokens)));
    }
    mtp_.Add(result, &from, &with);
    torch::autograd::backward(from, with);
    out_.backward_seconds += watch.Lap();
  }

  const configs::Grpo& config_;
  Policy& policy_;
  RolloutBatch& batch_;
  const Preparation& preparation_;
  Communicator alone_;
  Communicator& ranks_;
  MtpLoss mtp_;
  const BalanceWeights balance_;
  BatchGradient out_;
};

double MeanEntropy(const RolloutBatch& batch, const LossTotals& totals) {
  double sum = 0;
  for (std::size_t i = 0; i < batch.mask.size(); ++i) sum += batch.mask[i] * batch.entropy[i];
  return sum / std::max(1.0, totals.tokens);
}

/// A rollout whose log-probs the policy would not give again: of other weights, or another order of
/// arithmetic.
bool IsStale(const RolloutBatch& batch, int i, const Preparation& preparation) {
  if (!preparation.same_bits) return true;
  for (int j = 0; j < batch.length(i); ++j) {
    if (batch.Version(i, j) != preparation.version) return true;
    if (std::isnan(batch.rollout_logp[std::size_t(i) * batch.t + std::size_t(j)])) return true;
  }
  return false;
}

std::vector<int> LiveRows(const RolloutBatch& batch) {
  std::vector<int> rows;
  for (int i = 0; i < batch.n; ++i) {
    if (batch.Live(i)) rows.push_back(i);
  }
  return rows;
}

}  // namespace

double PrepareBatch(const configs::Grpo& config, Policy& policy, Policy* reference,
                    const Preparation& preparation, RolloutBatch* batch) {
  Run run(config, policy, batch, preparation);
  const std::vector<int> all = LiveRows(*batch);
  if (config.updates() > 1) {
    std::vector<int> stale;
    batch->measured.assign(batch->n, false);
    batch->old_logp = batch->rollout_logp;
    for (int i : all) {
      if (!IsStale(*batch, i, preparation)) continue;
      stale.push_back(i);
      batch->measured[i] = true;
    }
    run.Measure(policy, stale, &batch->logp, /*entropy=*/true);
    for (int i : stale) {
      const std::size_t at = std::size_t(i) * batch->t;
      std::copy_n(batch->logp.begin() + std::ptrdiff_t(at), batch->t,
                  batch->old_logp.begin() + std::ptrdiff_t(at));
    }
  }
  if (reference) {
    batch->ref_logp.assign(batch->logp.size(), 0.0f);
    run.Measure(*reference, all, &batch->ref_logp, /*entropy=*/false);
  }
  // The KL in the reward is that of the policy that sampled.
  LossInput sampled = batch->Input();
  sampled.old_logp = batch->rollout_logp;
  batch->advantages =
      Advantages(config, PenalizeRewards(config, batch->rewards, sampled), batch->mask, batch->t);
  return run.out().forward_seconds;
}

BatchGradient AddBatchGradient(const configs::Grpo& config, Policy& policy, RolloutBatch* batch,
                               const Preparation& preparation) {
  Run run(config, policy, batch, preparation);
  std::vector<int> live, still;
  const bool pulled = (config.beta > 0 && !config.kl_in_reward) || config.entropy_coef != 0 ||
                      config.expert_balance_loss > 0 || config.device_balance_loss > 0 ||
                      config.communication_balance_loss > 0;
  const auto masked = [&](int i) {  // nothing of it is trained, its MTP targets neither
    const auto row = batch->mask.begin() + std::ptrdiff_t(i) * batch->t;
    return std::all_of(row, row + batch->length(i), [](float m) { return !(m > 0); });
  };
  for (int i : LiveRows(*batch)) {
    const bool trains = (pulled || batch->advantages[i] != 0) && !masked(i);
    (trains ? live : still).push_back(i);
  }
  const LossTotals totals = CountTotals(batch->Input());
  run.Train(live, still, totals);
  policy.CollectGradients();
  BatchGradient out = std::move(run.out());
  out.loss = PolicyLoss(config, batch->Input(), batch->advantages, totals);
  if (config.entropy_coef != 0) out.loss.loss -= config.entropy_coef * MeanEntropy(*batch, totals);
  return out;
}

}  // namespace temper::learner
