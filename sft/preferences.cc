// Pairs of a chosen and a rejected text, scored by a scalar head.
#include <torch/torch.h>

#include <cmath>
#include <numeric>

#include "configs/error.h"
#include "engine/data/row_ids.h"
#include "learner/core/stopwatch.h"
#include "sft/dataset.h"
#include "sft/objective.h"

namespace temper::sft {

namespace {

using Ids = std::vector<std::int32_t>;
using learner::Pack;
using learner::Policy;
using learner::Stopwatch;

struct Pair {
  Ids chosen, rejected;

  /// Tokens that both begin with, and what a forward of the pair computes.
  std::int64_t common() const {
    return std::mismatch(chosen.begin(), chosen.end(), rejected.begin(), rejected.end()).first -
           chosen.begin();
  }
  std::int64_t tokens() const { return std::int64_t(chosen.size() + rejected.size()) - common(); }
};

void CheckLength(const Ids& ids, const std::string& where, const configs::Config& config,
                 const engine::ModelConfig& model) {
  const int most = std::min(model.max_positions, config.sft.max_length);
  if (int(ids.size()) > most) {
    throw UserError(where + " has " + std::to_string(ids.size()) + " tokens; " +
                    (most == config.sft.max_length
                         ? "sft.max_length is " + std::to_string(most) + ": raise it or shorten it"
                         : "the model has " + std::to_string(most) + " positions: shorten it"));
  }
  for (const std::int32_t id : ids) {
    if (id >= model.vocab_size)
      throw UserError(where + ": token " + std::to_string(id) +
                      " is past the model's vocabulary of " + std::to_string(model.vocab_size));
  }
}

std::vector<Pair> LoadPairs(const std::string& path, const configs::Config& config,
                            const engine::Tokenizer& tokenizer, const engine::ModelConfig& model) {
  std::vector<Pair> pairs;
  engine::ForEachJson(path, [&](const Json& row, const std::string& where, std::int64_t) {
    Pair pair;
    for (const char* column : {"chosen", "rejected"}) {
      Ids& ids = column[0] == 'c' ? pair.chosen : pair.rejected;
      ids = engine::PreferenceIds(row, column, config.data.prompt_column, where, tokenizer);
      CheckLength(ids, where + ": " + column, config, model);
    }
    if (pair.chosen == pair.rejected)
      throw UserError(where + ": chosen and rejected are the same tokens; remove the row");
    pairs.push_back(std::move(pair));
  });
  if (pairs.empty()) throw UserError(path + ": no rows; a pair a line is required");
  return pairs;
}

struct MicroBatch {
  std::shared_ptr<Pack> pack = std::make_shared<Pack>();
  std::vector<std::int64_t> ends;  // rows of the last tokens: chosen, rejected, chosen, ...

  void Add(const Pair& pair) {
    const std::size_t common = std::size_t(pair.common());
    const int trunk = pack->Add(std::span(pair.chosen).first(common));
    for (const Ids* ids : {&pair.chosen, &pair.rejected}) {
      const int s = pack->AddBranch(trunk, std::span(*ids).subspan(common));
      ends.push_back(pack->RowAt(s, int(ids->size()) - 1));
    }
  }
};

/// Sums over pairs.
struct Totals {
  std::int64_t pairs = 0, ordered = 0;
  double loss = 0, margin = 0, reward = 0;

  /// Those of all ranks.
  void Sum(learner::Communicator& ranks) {
    std::vector<double> sums = {double(pairs), double(ordered), loss, margin, reward};
    ranks.Sum(&sums);
    pairs = std::int64_t(sums[0]);
    ordered = std::int64_t(sums[1]);
    loss = sums[2];
    margin = sums[3];
    reward = sums[4];
  }

  Json Metrics(const std::string& prefix) const {
    const double n = double(pairs);
    return {{prefix + "accuracy", double(ordered) / n},
            {prefix + "margin", margin / n},
            {prefix + "mean_reward", reward / (2 * n)}};
  }
};

class Preferences : public Objective {
 public:
  Preferences(const configs::Config& config, const engine::Tokenizer& tokenizer, Policy& policy,
              learner::Communicator& ranks)
      : sft_(config.sft), policy_(policy), ranks_(ranks) {
    rows_ = LoadPairs(config.data.train, config, tokenizer, policy.config());
    if (sft_.num_train_rows > 0 && rows_.size() > std::size_t(sft_.num_train_rows))
      rows_.resize(std::size_t(sft_.num_train_rows));
    for (const Pair& row : rows_) lengths_.push_back(row.tokens());
    if (sft_.eval_steps > 0)
      eval_rows_ = LoadPairs(config.data.eval, config, tokenizer, policy.config());
  }
  const std::vector<std::int64_t>& lengths() const override { return lengths_; }

  StepReport Train(const std::vector<std::int64_t>& rows) override {
    StepReport report;
    const Totals totals = Run(rows_, rows, /*train=*/true, &report);
    report.loss = totals.loss / double(totals.pairs);
    report.metrics = totals.Metrics("");
    return report;
  }

  Json Evaluate() override {
    if (eval_rows_.empty()) return nullptr;
    std::vector<std::int64_t> all(eval_rows_.size());
    std::iota(all.begin(), all.end(), 0);
    StepReport report;
    const Totals totals = Run(eval_rows_, all, /*train=*/false, &report);
    Json line = totals.Metrics("eval_");
    line["eval_loss"] = totals.loss / double(totals.pairs);
    return line;
  }

 private:
  Totals Run(const std::vector<Pair>& rows, const std::vector<std::int64_t>& taken, bool train,
             StepReport* report) {
    std::vector<std::int64_t> all, lengths;
    for (const std::int64_t row : taken) all.push_back(rows[row].tokens());
    const auto own = Deal(all, ranks_.size())[std::size_t(ranks_.rank())];
    for (const std::int64_t i : own) lengths.push_back(all[i]);
    Totals totals;
    for (const auto& part : BestFit(lengths, sft_.packing ? MicroTokens(sft_) : 0)) {
      MicroBatch batch;
      for (const std::int64_t k : part) batch.Add(rows[taken[own[k]]]);
      Micro(batch, train ? double(taken.size()) : 0, &totals, report);
    }
    totals.Sum(ranks_);
    std::vector<double> tokens = {double(report->tokens)};
    ranks_.Sum(&tokens);
    report->tokens = std::int64_t(tokens[0]);
    if (train) report->loads.Sum(ranks_);
    return totals;
  }

  /// Backward of the mean over so many pairs; 0: none.
  void Micro(const MicroBatch& batch, double pairs, Totals* totals, StepReport* report) {
    Stopwatch watch;
    const Policy::Scores result = policy_.Score(batch.pack, batch.ends, pairs > 0);
    const float* score = result.scores.data_ptr<float>();
    torch::Tensor gradient = torch::empty_like(result.scores);
    float* g = gradient.data_ptr<float>();
    for (std::size_t i = 0; i < batch.ends.size(); i += 2) {
      const double margin = double(score[i]) - score[i + 1];
      // -log sigmoid(margin) without overflow on either side.
      totals->loss += std::max(-margin, 0.0) + std::log1p(std::exp(-std::abs(margin)));
      totals->margin += margin;
      totals->reward += double(score[i]) + score[i + 1];
      totals->ordered += margin > 0;
      ++totals->pairs;
      g[i + 1] = float(1 / (1 + std::exp(margin)) / pairs);
      g[i] = -g[i + 1];
    }
    report->forward += watch.Lap();
    if (pairs == 0) return;
    report->tokens += batch.pack->tokens();
    report->loads.Add(*batch.pack, result.routing);
    torch::autograd::backward({result.scores}, {gradient});
    report->backward += watch.Lap();
  }

  const configs::Sft& sft_;
  Policy& policy_;
  learner::Communicator& ranks_;
  std::vector<Pair> rows_, eval_rows_;
  std::vector<std::int64_t> lengths_;
};

}  // namespace

std::unique_ptr<Objective> MakePreferences(const configs::Config& config,
                                           const engine::Tokenizer& tokenizer, Policy& policy,
                                           learner::Communicator& ranks) {
  return std::make_unique<Preferences>(config, tokenizer, policy, ranks);
}

}  // namespace temper::sft
