// Next tokens of packed rows of prompt and completion.
#include <torch/torch.h>

#include <numeric>

#include "configs/error.h"
#include "kernels/sampling.h"
#include "learner/core/stopwatch.h"
#include "learner/mtp_loss.h"
#include "sft/dataset.h"
#include "sft/objective.h"
#include "sft/teacher.h"

namespace temper::sft {

namespace {

using learner::Pack;
using learner::Policy;
using learner::Stopwatch;
using learner::Targets;

struct MicroBatch {
  int rank = 0;  // that runs it
  std::shared_ptr<Pack> pack = std::make_shared<Pack>();
  Targets targets;
  std::vector<learner::WeightedIds> soft;  // one a target; empty: nothing of a teacher
};

/// Sums over a step or an evaluation, and the denominators of the whole step.
struct Totals {
  /// Where each rank has its own micro-batches' sums: those of all. The denominators are the step's
  /// already.
  void Sum(learner::Communicator& ranks) {
    std::vector<double> sums = {loss,           double(correct), balance_loss,
                                double(pairs),  double(dropped), double(distilled),
                                distillation_kl};
    ranks.Sum(&sums);
    loss = sums[0];
    correct = std::int64_t(sums[1]);
    balance_loss = sums[2];
    pairs = std::int64_t(sums[3]);
    dropped = std::int64_t(sums[4]);
    distilled = std::int64_t(sums[5]);
    distillation_kl = sums[6];
    mtp.Sum(ranks);
  }

  learner::MtpLoss mtp;
  std::int64_t trained = 0;  // targets
  std::int64_t correct = 0;
  learner::BalanceWeights balance = {};
  double balance_loss = 0;
  std::int64_t pairs = 0, dropped = 0;  // of tokens and experts
  std::int64_t distilled = 0;           // targets of a teacher
  double distillation_kl = 0;           // sum of KL(teacher's weights || policy)
  double loss = 0;                      // sum of -log p
};

class NextTokens : public Objective {
 public:
  NextTokens(const configs::Config& config, const engine::Tokenizer& tokenizer, Policy& policy,
             learner::Communicator& ranks);
  const std::vector<std::int64_t>& lengths() const override { return lengths_; }
  StepReport Train(const std::vector<std::int64_t>& rows) override;
  Json Evaluate() override;

 private:
  /// Those of every rank.
  std::vector<MicroBatch> Batch(const std::vector<Example>& rows,
                                const std::vector<std::int64_t>& taken) const;
  /// Whether a row never loses a token to a device's capacity: the same rows in every epoch.
  bool Exempt(std::int64_t row) const;
  void AddRow(const Example& row, MicroBatch* batch) const;
  void Micro(const MicroBatch& batch, bool train, Totals* totals, StepReport* report);

  const configs::Config& config_;
  const configs::Sft& sft_;
  Policy& policy_;
  learner::Communicator& ranks_;
  std::vector<Example> rows_, eval_rows_;
  std::vector<std::int64_t> lengths_;
};

NextTokens::NextTokens(const configs::Config& config, const engine::Tokenizer& tokenizer,
                       Policy& policy, learner::Communicator& ranks)
    : config_(config), sft_(config.sft), policy_(policy), ranks_(ranks) {
  rows_ = LoadExamples(config.data.train, config, tokenizer, policy.config());
  for (const Example& row : rows_) lengths_.push_back(std::int64_t(row.ids.size()));
  if (sft_.eval_steps > 0)
    eval_rows_ = LoadExamples(config.data.eval, config, tokenizer, policy.config());
}

void NextTokens::AddRow(const Example& row, MicroBatch* batch) const {
  const std::int32_t first = batch->pack->tokens();
  batch->pack->Add(row.ids);
  for (const std::int32_t t : TrainedTokens(row, sft_)) {
    batch->targets.row.push_back(first + t - 1);
    batch->targets.target.push_back(row.ids[t]);
    if (t < row.prompt || row.teacher.empty()) continue;
    batch->soft.resize(batch->targets.target.size() - 1);
    batch->soft.push_back(row.teacher[std::size_t(t - row.prompt)]);
  }
}

bool NextTokens::Exempt(std::int64_t row) const {
  return kernels::SampleUniform(config_.seed, std::uint64_t(row), 0, 0) < sft_.token_drop_exempt;
}

std::vector<MicroBatch> NextTokens::Batch(const std::vector<Example>& rows,
                                          const std::vector<std::int64_t>& taken) const {
  std::vector<std::int64_t> lengths;
  for (const std::int64_t row : taken) lengths.push_back(std::int64_t(rows[row].ids.size()));
  // Without packing every row is a forward of its own; the gradient is the same.
  std::vector<MicroBatch> batches;
  int rank = 0;
  for (const std::vector<std::int64_t>& dealt : Deal(lengths, ranks_.size())) {
    std::vector<std::int64_t> own;
    for (const std::int64_t i : dealt) own.push_back(lengths[i]);
    for (const std::vector<std::int64_t>& pack :
         BestFit(own, sft_.packing ? MicroTokens(sft_) : 0)) {
      batches.emplace_back();
      batches.back().rank = rank;
      for (const std::int64_t k : pack) {
        const std::int64_t row = taken[dealt[k]];
        AddRow(rows[row], &batches.back());
        batches.back().pack->exempt.push_back(Exempt(row));
      }
    }
    ++rank;
  }
  return batches;
}

void NextTokens::Micro(const MicroBatch& batch, bool train, Totals* totals, StepReport* report) {
  Stopwatch watch;
  Policy::Request request;
  request.gradients = train;
  request.entropy = false;
  request.mtp = train && totals->mtp.wanted();
  if (train) request.balance = totals->balance;
  if (train) request.capacity = sft_.token_drop_capacity;
  if (!batch.soft.empty()) {
    std::vector<learner::WeightedIds> soft = batch.soft;
    soft.resize(batch.targets.target.size());
    request.forms.soft = std::make_shared<const decltype(soft)>(std::move(soft));
  }
  const Policy::Result result = policy_.Forward(batch.pack, batch.targets, request);
  for (std::size_t i = 0; i < batch.soft.size(); ++i) {
    if (batch.soft[i].ids.empty()) continue;
    ++totals->distilled;
    totals->distillation_kl += NegatedEntropy(batch.soft[i]) - result.logp.data_ptr<float>()[i];
  }
  for (std::int64_t i = 0; i < result.logp.numel(); ++i)
    totals->loss -= result.logp.data_ptr<float>()[i];
  totals->correct += result.correct;
  for (const learner::Routing& layer : result.routing) {
    totals->balance_loss += layer.balance_loss;
    totals->pairs += std::int64_t(layer.ids.size());
    totals->dropped += layer.dropped;
  }
  report->forward += watch.Lap();
  if (!train) return;
  report->loads.Add(*batch.pack, result.routing, result.mtp_routing);
  // d loss / d logp is one number: the step's denominators are known before its first micro-batch.
  learner::Tensors from{result.logp},
      gradient{torch::full_like(result.logp, -1.0 / double(totals->trained))};
  totals->mtp.Add(result, &from, &gradient);
  torch::autograd::backward(from, gradient);
  report->backward += watch.Lap();
}

StepReport NextTokens::Train(const std::vector<std::int64_t>& rows) {
  StepReport report;
  const std::vector<MicroBatch> batches = Batch(rows_, rows);
  Totals totals{{policy_.config(), sft_.mtp_loss_scale}};
  totals.balance = {sft_.expert_balance_loss, sft_.device_balance_loss,
                    sft_.communication_balance_loss, double(rows.size())};
  for (const MicroBatch& batch : batches) {
    report.tokens += batch.pack->tokens();
    totals.trained += batch.targets.count();
    totals.mtp.Count(*batch.pack, batch.targets);
  }
  if (totals.trained == 0)
    throw UserError(config_.data.train + ": a step has no trained token; rows need completions");
  for (const MicroBatch& batch : batches) {
    if (batch.rank == ranks_.rank()) Micro(batch, /*train=*/true, &totals, &report);
  }
  totals.Sum(ranks_);
  report.loads.Sum(ranks_);
  report.loss = totals.loss / double(totals.trained);
  report.metrics = {{"mean_token_accuracy", double(totals.correct) / double(totals.trained)},
                    {"trained_tokens", totals.trained}};
  if (totals.mtp.mean() != 0) report.metrics["mtp_loss"] = totals.mtp.mean();
  learner::AddAcceptance(totals.mtp.acceptance(), &report.metrics);
  if (totals.distilled > 0)
    report.metrics["distillation_kl"] = totals.distillation_kl / double(totals.distilled);
  if (sft_.token_drop_capacity > 0)
    report.metrics["moe/dropped"] =
        double(totals.dropped) / double(std::max<std::int64_t>(1, totals.pairs));
  if (totals.balance.wanted()) report.metrics["balance_loss"] = totals.balance_loss;
  return report;
}

Json NextTokens::Evaluate() {
  if (eval_rows_.empty()) return nullptr;
  std::vector<std::int64_t> all(eval_rows_.size());
  std::iota(all.begin(), all.end(), 0);
  StepReport report;
  Totals totals{{policy_.config(), 0}};
  const std::vector<MicroBatch> batches = Batch(eval_rows_, all);
  for (const MicroBatch& batch : batches) totals.trained += batch.targets.count();
  if (totals.trained == 0)
    throw UserError(config_.data.eval + ": no trained token; rows need completions");
  for (const MicroBatch& batch : batches) {
    if (batch.rank == ranks_.rank()) Micro(batch, /*train=*/false, &totals, &report);
  }
  totals.Sum(ranks_);
  return {{"eval_loss", totals.loss / double(totals.trained)},
          {"eval_mean_token_accuracy", double(totals.correct) / double(totals.trained)}};
}

}  // namespace

std::unique_ptr<Objective> MakeNextTokens(const configs::Config& config,
                                          const engine::Tokenizer& tokenizer, Policy& policy,
                                          learner::Communicator& ranks) {
  return std::make_unique<NextTokens>(config, tokenizer, policy, ranks);
}

}  // namespace temper::sft
