// Next tokens of packed rows of prompt and completion.
#include <torch/torch.h>

#include <numeric>

#include "configs/error.h"
#include "learner/core/stopwatch.h"
#include "learner/mtp_loss.h"
#include "sft/dataset.h"
#include "sft/objective.h"

namespace temper::sft {

namespace {

using learner::Pack;
using learner::Policy;
using learner::Stopwatch;
using learner::Targets;

struct MicroBatch {
  std::shared_ptr<Pack> pack = std::make_shared<Pack>();
  Targets targets;
};

/// Sums over a step or an evaluation, and the denominators of the whole step.
struct Totals {
  learner::MtpLoss mtp;
  std::int64_t trained = 0;  // targets
  std::int64_t correct = 0;
  learner::BalanceWeights balance = {};
  double balance_loss = 0;
  double loss = 0;  // sum of -log p
};

class NextTokens : public Objective {
 public:
  NextTokens(const configs::Config& config, const engine::Tokenizer& tokenizer, Policy& policy);
  const std::vector<std::int64_t>& lengths() const override { return lengths_; }
  StepReport Train(const std::vector<std::int64_t>& rows) override;
  Json Evaluate() override;

 private:
  std::vector<MicroBatch> Batch(const std::vector<Example>& rows,
                                const std::vector<std::int64_t>& taken) const;
  void AddRow(const Example& row, MicroBatch* batch) const;
  void Micro(const MicroBatch& batch, bool train, Totals* totals, StepReport* report);

  const configs::Config& config_;
  const configs::Sft& sft_;
  Policy& policy_;
  std::vector<Example> rows_, eval_rows_;
  std::vector<std::int64_t> lengths_;
};

NextTokens::NextTokens(const configs::Config& config, const engine::Tokenizer& tokenizer,
                       Policy& policy)
    : config_(config), sft_(config.sft), policy_(policy) {
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
  }
}

std::vector<MicroBatch> NextTokens::Batch(const std::vector<Example>& rows,
                                          const std::vector<std::int64_t>& taken) const {
  std::vector<std::int64_t> lengths;
  for (const std::int64_t row : taken) lengths.push_back(std::int64_t(rows[row].ids.size()));
  // Without packing every row is a forward of its own; the gradient is the same.
  std::vector<MicroBatch> batches;
  for (const std::vector<std::int64_t>& pack :
       BestFit(lengths, sft_.packing ? MicroTokens(sft_) : 0)) {
    batches.emplace_back();
    for (const std::int64_t i : pack) AddRow(rows[taken[i]], &batches.back());
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
  const Policy::Result result = policy_.Forward(batch.pack, batch.targets, request);
  for (std::int64_t i = 0; i < result.logp.numel(); ++i)
    totals->loss -= result.logp.data_ptr<float>()[i];
  totals->correct += result.correct;
  for (const learner::Routing& layer : result.routing) totals->balance_loss += layer.balance_loss;
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
  for (const MicroBatch& batch : batches) Micro(batch, /*train=*/true, &totals, &report);
  report.loss = totals.loss / double(totals.trained);
  report.metrics = {{"mean_token_accuracy", double(totals.correct) / double(totals.trained)},
                    {"trained_tokens", totals.trained}};
  if (totals.mtp.mean() != 0) report.metrics["mtp_loss"] = totals.mtp.mean();
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
  for (const MicroBatch& batch : batches) Micro(batch, /*train=*/false, &totals, &report);
  return {{"eval_loss", totals.loss / double(totals.trained)},
          {"eval_mean_token_accuracy", double(totals.correct) / double(totals.trained)}};
}

}  // namespace

std::unique_ptr<Objective> MakeNextTokens(const configs::Config& config,
                                          const engine::Tokenizer& tokenizer, Policy& policy) {
  return std::make_unique<NextTokens>(config, tokenizer, policy);
}

}  // namespace temper::sft
