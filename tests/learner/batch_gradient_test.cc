#include "learner/batch_gradient.h"

#include <gtest/gtest.h>

#include <cmath>

#include "configs/error.h"
#include "engine/forward.h"
#include "kernels/sampling.h"
#include "tests/learner/rank_threads.h"
#include "tests/learner/tiny_policy.h"

namespace temper::learner {
namespace {

/// Four groups of four; group 1 has equal rewards, group 2 a dropped sample, group 3 one that is
/// not applicable. Rollout log-probs are the policy's own.
class BatchGradientTest : public testing::Test {
 protected:
  BatchGradientTest() : config_(engine::TinyConfig()), policy_(TinyPolicy(config_, 21)) {
    grpo_.num_generations = 4;
    grpo_.mtp_loss_scale = 0;
    std::mt19937_64 rng(4);
    for (std::uint64_t g = 0; g < 4; ++g) {
      ScoredGroup group;
      group.grp = g;
      for (std::uint64_t i = 0; i < 3 + g; ++i) group.prompt_ids.push_back(Id(rng));
      for (std::uint32_t s = 0; s < 4; ++s) {
        store::RolloutRow row;
        row.grp = g;
        row.sample = s;
        row.state = "scored";
        row.version = 3;
        for (std::uint64_t i = 0; i < 1 + rng() % 9; ++i) row.ids.push_back(Id(rng));
        row.logp.assign(row.ids.size(), 0.0f);
        row.score = g == 1 ? 1.0 : double(s % 3);
        row.finish_reason = "stop";
        group.samples.push_back(row);
      }
      groups_.push_back(group);
    }
    groups_[2].samples[1].state = "dropped";
    groups_[3].samples[0].score.reset();
    const RolloutBatch batch = Gradient(grpo_).batch;  // fills the log-probs
    for (int i = 0; i < batch.n; ++i) {
      std::vector<float>& logp = groups_[i / 4].samples[i % 4].logp;
      std::copy_n(batch.logp.begin() + std::int64_t(i) * batch.t, logp.size(), logp.begin());
    }
  }

  std::int32_t Id(std::mt19937_64& rng) const {
    return std::int32_t(rng() % std::uint64_t(config_.vocab_size));
  }

  ExpertShape Replayed(const configs::Grpo& grpo) const {
    if (grpo.routing_replay != "rollout") return {};
    return {config_.moe_layers(), config_.top_k, config_.experts};
  }

  struct Outcome {
    RolloutBatch batch;
    BatchGradient report;
    std::vector<float> gradient;
  };
  Outcome Gradient(const configs::Grpo& grpo, Policy* reference = nullptr,
                   int micro_tokens = kMicroTokens) {
    return Gradient(grpo, *policy_, reference, micro_tokens, nullptr);
  }
  /// Of the policy of one of several ranks: the sum of all.
  Outcome Gradient(const configs::Grpo& grpo, Policy& policy, Policy* reference, int micro_tokens,
                   Communicator* ranks) const {
    Parameters& parameters = policy.parameters();
    parameters.ZeroGradients();
    Outcome out{MakeBatch(grpo, groups_, Replayed(grpo)), {}, {}};
    Preparation preparation;
    preparation.version = 3;
    preparation.micro_tokens = micro_tokens;
    preparation.ranks = ranks;
    PrepareBatch(grpo, policy, reference, preparation, &out.batch);
    out.report = AddBatchGradient(grpo, policy, &out.batch, preparation);
    if (ranks) {
      ranks->ReduceScatter(parameters.gradients(), parameters.size());
      ranks->AllGather(parameters.gradients(), parameters.size());
    }
    out.gradient = Gradients(policy);
    return out;
  }

  static double Distance(const std::vector<float>& a, const std::vector<float>& b) {
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
      norm += double(b[i]) * b[i];
    }
    return std::sqrt(difference / norm);
  }

  engine::ModelConfig config_;
  std::unique_ptr<Policy> policy_;
  configs::Grpo grpo_;
  std::vector<ScoredGroup> groups_;
};

TEST_F(BatchGradientTest, IsThatOfAdvantageTimesLogpOverTheTokensOfTheStep) {
  const Outcome found = Gradient(grpo_);
  policy_->parameters().ZeroGradients();
  std::vector<int> rows;
  double tokens = 0;
  for (int i = 0; i < found.batch.n; ++i) {
    if (!found.batch.Live(i)) continue;
    rows.push_back(i);
    tokens += found.batch.length(i);
  }
  const RowPack pack = PackRows(found.batch, rows, 1 << 20)[0];
  std::vector<float> weight;
  for (int i : rows) {
    weight.insert(weight.end(), found.batch.length(i), float(-found.batch.advantages[i] / tokens));
  }
  const torch::Tensor logp = policy_->Forward(pack.pack, pack.targets, {}).logp;
  (logp * torch::tensor(weight)).sum().backward();
  EXPECT_LT(Distance(found.gradient, Gradients(*policy_)), 1e-6);
  EXPECT_EQ(found.batch.advantages[4], 0);   // equal rewards
  EXPECT_EQ(found.batch.advantages[12], 0);  // not applicable
  EXPECT_NE(found.batch.advantages[0], 0);
}

TEST_F(BatchGradientTest, AnySplitIntoMicroBatchesGivesTheSame) {
  grpo_.mtp_loss_scale = 0.2;
  grpo_.entropy_coef = 0.01;
  const Outcome whole = Gradient(grpo_);
  for (int micro_tokens : {1, 17, 60}) {
    const Outcome split = Gradient(grpo_, nullptr, micro_tokens);
    EXPECT_LT(Distance(split.gradient, whole.gradient), 1e-6) << micro_tokens;
    EXPECT_EQ(split.batch.logp, whole.batch.logp);
    EXPECT_NEAR(split.report.loss.loss, whole.report.loss.loss, 1e-12);
    EXPECT_NEAR(split.report.mtp_loss, whole.report.mtp_loss, 1e-9);
  }
}

TEST_F(BatchGradientTest, AnySplitOverRanksGivesTheSame) {
  grpo_.mtp_loss_scale = 0.2;
  grpo_.entropy_coef = 0.01;
  grpo_.beta = 0.1;
  grpo_.num_iterations = 2;
  for (store::RolloutRow& row : groups_[3].samples) row.version = 2;  // needs a forward of its own
  for (const std::size_t groups : {4, 1}) {                           // 1: more ranks than rows
    groups_.resize(groups);
    const auto reference = TinyPolicy(config_, 22);
    const Outcome whole = Gradient(grpo_, reference.get());
    for (const int count : {2, 4, 6}) {
      RunRanks(count, [&](Communicator& ranks) {
        const auto policy = TinyPolicy(config_, 21, 1), other = TinyPolicy(config_, 22, 1);
        const Outcome split = Gradient(grpo_, *policy, other.get(), 30, &ranks);
        EXPECT_LT(Distance(split.gradient, whole.gradient), 1e-6) << count;
        EXPECT_EQ(split.batch.logp, whole.batch.logp);
        EXPECT_EQ(split.batch.old_logp, whole.batch.old_logp);
        EXPECT_EQ(split.batch.ref_logp, whole.batch.ref_logp);
        EXPECT_EQ(split.report.loss.loss, whole.report.loss.loss);
        EXPECT_EQ(split.report.loss.metrics, whole.report.loss.metrics);
        EXPECT_EQ(split.report.loads.layers(), whole.report.loads.layers());
        EXPECT_NEAR(split.report.mtp_loss, whole.report.mtp_loss, 1e-12);
        EXPECT_EQ(split.report.mtp_acceptance, whole.report.mtp_acceptance);
      });
    }
  }
}

TEST_F(BatchGradientTest, TheSamePolicyHasNoMismatchAndARatioOfOne) {
  const Outcome found = Gradient(grpo_);
  const Json metrics = BatchMetrics(grpo_, groups_, found.batch, 3);
  EXPECT_EQ(metrics["mismatch/logp_abs_diff_max"], 0.0);
  EXPECT_EQ(metrics["mismatch/token_mult_prob_error"], 1.0);
  EXPECT_EQ(found.report.loss.metrics["actor/ppo_kl"], 0.0);
  EXPECT_GT(metrics["entropy"].get<double>(), 0.0);
}

TEST_F(BatchGradientTest, ConstantGroupsAreForwardedButPullNothing) {
  for (ScoredGroup& group : groups_) {
    for (store::RolloutRow& row : group.samples) row.score = 0.5;
  }
  const Outcome found = Gradient(grpo_);
  EXPECT_TRUE(
      std::all_of(found.gradient.begin(), found.gradient.end(), [](float x) { return x == 0; }));
  EXPECT_EQ(found.batch.logp, found.batch.rollout_logp);
}

TEST_F(BatchGradientTest, AReferenceThatIsThePolicyPullsNothingAndAnotherDoes) {
  grpo_.beta = 0.1;
  for (ScoredGroup& group : groups_) {
    for (store::RolloutRow& row : group.samples) row.score = 0.5;
  }
  const Outcome same = Gradient(grpo_, policy_.get());
  EXPECT_EQ(same.report.loss.metrics["kl"], 0.0);
  EXPECT_TRUE(
      std::all_of(same.gradient.begin(), same.gradient.end(), [](float x) { return x == 0; }));
  const auto other = TinyPolicy(config_, 22);
  const Outcome pulled = Gradient(grpo_, other.get());
  EXPECT_GT(pulled.report.loss.metrics["kl"].get<double>(), 0.0);
  EXPECT_FALSE(
      std::all_of(pulled.gradient.begin(), pulled.gradient.end(), [](float x) { return x == 0; }));
}

TEST_F(BatchGradientTest, TheKlInTheRewardChangesAdvantagesOnly) {
  grpo_.beta = 0.1;
  grpo_.kl_in_reward = true;
  const auto other = TinyPolicy(config_, 22);
  const Outcome found = Gradient(grpo_, other.get());
  grpo_.beta = 0;
  const Outcome without = Gradient(grpo_);
  EXPECT_NE(found.batch.advantages[4], 0);  // equal rewards, but not equal penalties
  EXPECT_EQ(without.batch.advantages[4], 0);
}

TEST_F(BatchGradientTest, TheEntropyTermRaisesTheEntropy) {
  for (ScoredGroup& group : groups_) {
    for (store::RolloutRow& row : group.samples) row.score = 0.5;
  }
  const auto entropy = [&](const Outcome& o) {
    return BatchMetrics(grpo_, groups_, o.batch, 3)["entropy"].get<double>();
  };
  grpo_.entropy_coef = 1;
  grpo_.learning_rate = 1e-5;  // small: a random tiny model is rough
  grpo_.router_bias_update_speed = 0;
  const Outcome before = Gradient(grpo_);
  EXPECT_NEAR(before.report.loss.loss, -entropy(before), 1e-6);
  Update(*policy_, grpo_, 1, {}, 0.5);
  EXPECT_GT(entropy(Gradient(grpo_)), entropy(before));
}

TEST_F(BatchGradientTest, TruncatedCompletionsCanBeMasked) {
  groups_[0].samples[0].finish_reason = "length";
  grpo_.mask_truncated_completions = true;
  const RolloutBatch batch = MakeBatch(grpo_, groups_);
  EXPECT_EQ(batch.mask[0], 0.0f);
  EXPECT_EQ(batch.mask[batch.t], 1.0f);
}

TEST_F(BatchGradientTest, FreshRolloutsNeedNoPassForTheirOldLogProbsAndStaleOnesGetOne) {
  grpo_.num_iterations = 2;
  for (store::RolloutRow& row : groups_[3].samples) {
    row.version = 2;
    for (float& logp : row.logp) logp -= 0.3f;  // another policy's
  }
  RolloutBatch batch = MakeBatch(grpo_, groups_);
  Preparation preparation;
  preparation.version = 3;
  PrepareBatch(grpo_, *policy_, nullptr, preparation, &batch);
  const Outcome whole = Gradient(grpo_);
  for (int i = 0; i < batch.n; ++i) {
    EXPECT_EQ(batch.measured[i], batch.Live(i) && i >= 12) << i;
    if (!batch.Live(i)) continue;
    // Decoupled: the ratio begins at the policy of the batch's start, not at the sampler's.
    for (int j = 0; j < batch.length(i); ++j) {
      const std::size_t at = std::size_t(i) * batch.t + j;
      EXPECT_EQ(batch.old_logp[at], whole.batch.logp[at]);
      EXPECT_EQ(batch.rollout_logp[at] == batch.old_logp[at], i < 12);
    }
  }
}

TEST_F(BatchGradientTest, TheStaleRolloutsWeightIsThatOfTheBatchsStart) {
  grpo_.num_iterations = 2;
  grpo_.rollout_correction.mode = "token_truncate";
  grpo_.rollout_correction.clip_max = 1.2;
  for (store::RolloutRow& row : groups_[0].samples) {
    row.version = 2;
    for (float& logp : row.logp) logp -= 0.5f;
  }
  RolloutBatch batch = MakeBatch(grpo_, groups_);
  Preparation preparation;
  preparation.version = 3;
  PrepareBatch(grpo_, *policy_, nullptr, preparation, &batch);
  // The policy moves between the iterations.
  for (std::int64_t i = 0; i < policy_->parameters().size(); i += 3)
    policy_->parameters().values()[i] *= 1.02f;
  policy_->Refresh();
  const BatchGradient second = AddBatchGradient(grpo_, *policy_, &batch, preparation);
  LossInput in;
  in.n = batch.n;
  in.t = batch.t;
  in.logp = batch.logp;
  in.old_logp = batch.old_logp;
  in.rollout_logp = batch.rollout_logp;
  in.mask = batch.mask;
  const LossOutput by_hand = PolicyLoss(grpo_, in, batch.advantages, CountTotals(in));
  EXPECT_EQ(second.loss.loss, by_hand.loss);
  EXPECT_NE(second.loss.metrics["actor/ppo_kl"], 0.0);
  EXPECT_GT(second.loss.metrics["clip_ratio/region_mean"].get<double>(), 0.0);
  EXPECT_EQ(second.loss.metrics["sampling/importance_sampling_ratio/max"], 1.2);
}

TEST_F(BatchGradientTest, MiniBatchesOfAFrozenPolicyAddUpToTheBatch) {
  const Outcome whole = Gradient(grpo_);
  policy_->parameters().ZeroGradients();
  double tokens = 0, all = 0;
  std::vector<float> sum(whole.gradient.size());
  RolloutBatch batch = MakeBatch(grpo_, groups_);
  Preparation preparation;
  preparation.version = 3;
  PrepareBatch(grpo_, *policy_, nullptr, preparation, &batch);
  for (float m : batch.mask) all += m;
  for (int first : {0, 8}) {
    RolloutBatch part = Slice(batch, first, 8);
    policy_->parameters().ZeroGradients();
    AddBatchGradient(grpo_, *policy_, &part, preparation);
    tokens = CountTotals(part.Input()).tokens;
    const std::vector<float> gradient = Gradients(*policy_);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += float(gradient[i] * tokens / all);
  }
  EXPECT_LT(Distance(sum, whole.gradient), 1e-6);
}

TEST_F(BatchGradientTest, ReplayedExpertsAreUsedAndTheGradientGoesThroughTheGates) {
  const Outcome chosen = Gradient(grpo_);
  // What the policy chose itself, replayed, changes no bit.
  const auto record = [&] {
    for (ScoredGroup& group : groups_) {
      for (store::RolloutRow& row : group.samples) {
        auto pack = std::make_shared<Pack>();
        pack->Add(group.prompt_ids);
        std::vector<std::int32_t> ids = group.prompt_ids;
        ids.insert(ids.end(), row.ids.begin(), row.ids.end() - 1);
        pack = std::make_shared<Pack>();
        pack->Add(ids);
        Targets none;
        none.row = {0};
        none.target = {0};
        Policy::Request request;
        request.gradients = false;
        const auto routing = policy_->Forward(pack, none, request).routing;
        const std::size_t k = std::size_t(config_.top_k), layers = routing.size();
        row.experts.resize(ids.size() * layers * k);
        for (std::size_t t = 0; t < ids.size(); ++t) {
          for (std::size_t l = 0; l < layers; ++l)
            std::copy_n(routing[l].ids.begin() + std::ptrdiff_t(t * k), k,
                        row.experts.begin() + std::ptrdiff_t((t * layers + l) * k));
        }
      }
    }
  };
  record();
  grpo_.routing_replay = "rollout";
  const Outcome replayed = Gradient(grpo_);
  EXPECT_EQ(replayed.batch.logp, chosen.batch.logp);
  EXPECT_EQ(replayed.gradient, chosen.gradient);
  EXPECT_LT(Distance(Gradient(grpo_, nullptr, 30).gradient, chosen.gradient), 1e-6);
  // Another policy would choose others; with the recorded ones its router still gets a gradient.
  std::mt19937 rng(5);
  std::normal_distribution<float> normal;
  const auto& router = policy_->parameters().Find("model.layers.1.mlp.gate.weight");
  for (float& x : policy_->parameters().MutableValue(router)) x += 2 * normal(rng);
  policy_->Refresh();
  const Outcome held = Gradient(grpo_);
  double slope = 0;
  for (std::int64_t i = 0; i < router.spec.count(); ++i)
    slope += std::abs(held.gradient[std::size_t(router.offset + i)]);
  EXPECT_GT(slope, 0);
  // Recorded experts of a run that does not ask for them are left alone, and a reference chooses
  // for itself.
  configs::Grpo none = grpo_;
  none.routing_replay = "none";
  EXPECT_NE(Gradient(none).batch.logp, held.batch.logp);
  const auto reference = TinyPolicy(config_, 77);
  EXPECT_EQ(Gradient(none, reference.get()).batch.ref_logp,
            Gradient(grpo_, reference.get()).batch.ref_logp);
  // Samples of one group whose prompts chose differently do not share the prompt.
  record();
  std::vector<int> all;
  for (int i = 0; i < held.batch.n; ++i) {
    if (held.batch.Live(i)) all.push_back(i);
  }
  const RolloutBatch batch = MakeBatch(grpo_, groups_, Replayed(grpo_));
  const int shared = PackRows(batch, all, kMicroTokens)[0].pack->tokens();
  std::vector<std::uint16_t>& experts = groups_[0].samples[1].experts;
  for (std::uint16_t e = 0; e < config_.top_k; ++e) experts[e] = std::uint16_t(e);
  const RolloutBatch apart = MakeBatch(grpo_, groups_, Replayed(grpo_));
  EXPECT_GT(PackRows(apart, all, kMicroTokens)[0].pack->tokens(), shared);
  experts[0] = std::uint16_t(config_.experts);
  EXPECT_THROW(MakeBatch(grpo_, groups_, Replayed(grpo_)), UserError);
  experts.clear();
  EXPECT_THROW(MakeBatch(grpo_, groups_, Replayed(grpo_)), UserError);
}

TEST_F(BatchGradientTest, BalanceLossesCountAGroupsPromptOnceForEachSampleInAnySplit) {
  grpo_.expert_balance_loss = 0.3;
  grpo_.device_balance_loss = 0.2;
  grpo_.communication_balance_loss = 0.1;
  const Outcome whole = Gradient(grpo_), split = Gradient(grpo_, nullptr, 20);
  EXPECT_GT(whole.report.balance_loss, 0);
  EXPECT_NEAR(split.report.balance_loss, whole.report.balance_loss,
              1e-6 * whole.report.balance_loss);
  EXPECT_LT(Distance(split.gradient, whole.gradient), 1e-6);
}

TEST_F(BatchGradientTest, RenormalisedLogProbsAreTheActorsAndKeepTheirTokens) {
  grpo_.top_k = 20;
  grpo_.top_p = 0.9;
  grpo_.truncated_sampling = "renormalise";
  grpo_.num_iterations = 2;
  // Rollouts of the truncated distribution: tokens and log-probs that SampleToken gives.
  std::mt19937_64 rng(9);
  kernels::SampleParams params;
  params.top_k = 20;
  params.top_p = 0.9f;
  for (ScoredGroup& group : groups_) {
    for (store::RolloutRow& row : group.samples) {
      std::vector<std::int32_t> ids = group.prompt_ids;
      for (std::size_t j = 0; j < row.ids.size(); ++j) {
        auto pack = std::make_shared<Pack>();
        pack->Add(ids);
        // The logits of the last row, by log-probs of every id.
        std::vector<float> logits(config_.vocab_size);
        kernels::ThreadPool pool(1);
        engine::Forward forward(policy_->weights(), pool);
        const std::int64_t bytes = forward.CacheBytes(config_.num_layers);
        engine::AlignedBytes cache(ids.size() * bytes);
        std::vector<const void*> keys;
        std::vector<std::byte*> latent;
        std::vector<kernels::AttentionRow> rows;
        for (std::size_t t = 0; t < ids.size(); ++t) {
          latent.push_back(cache.data() + t * bytes);
          keys.push_back(latent.back());
        }
        for (std::size_t t = 0; t < ids.size(); ++t) rows.push_back({keys.data(), int(t) + 1});
        std::vector<float> hidden(ids.size() * config_.hidden_size);
        forward.Hidden(
            {int(ids.size()), ids.data(), pack->position.data(), latent.data(), rows.data()},
            hidden.data());
        forward.Logits(hidden.data() + (ids.size() - 1) * config_.hidden_size, 1, logits.data());
        const kernels::SampledToken token =
            kernels::SampleToken(logits.data(), config_.vocab_size, config_.vocab_size - 3, params,
                                 float(rng() % 1000) / 1000);
        row.ids[j] = token.id;
        row.logp[j] = token.logp_processed;
        std::vector<std::int32_t> kept;
        kernels::KeptIds(logits.data(), config_.vocab_size, config_.vocab_size - 3, params, &kept);
        row.kept.push_back(std::int32_t(kept.size()));
        row.kept.insert(row.kept.end(), kept.begin(), kept.end());
        ids.push_back(token.id);
      }
    }
  }
  RolloutBatch batch = MakeBatch(grpo_, groups_);
  Preparation preparation;
  preparation.version = 3;
  PrepareBatch(grpo_, *policy_, nullptr, preparation, &batch);
  const BatchGradient first = AddBatchGradient(grpo_, *policy_, &batch, preparation);
  EXPECT_EQ(batch.logp, batch.rollout_logp);
  EXPECT_EQ(first.loss.metrics["actor/ppo_kl"], 0.0);
  // Another policy: the tokens that were kept stay those of the sampler.
  for (std::int64_t i = 0; i < policy_->parameters().size(); i += 3)
    policy_->parameters().values()[i] *= 1.02f;
  policy_->Refresh();
  AddBatchGradient(grpo_, *policy_, &batch, preparation);
  EXPECT_NE(batch.logp, batch.rollout_logp);
}

}  // namespace
}  // namespace temper::learner
