#include "learner/policy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "engine/forward.h"
#include "kernels/sampling.h"
#include "tests/learner/tiny_policy.h"

namespace temper::learner {
namespace {

const std::vector<int> kLengths = {9, 1, 40, 2, 17, 300, 3, 41};

double Distance(std::span<const float> a, std::span<const float> b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    norm += double(b[i]) * b[i];
  }
  return std::sqrt(difference / (norm + 1e-24));
}

/// The engine's side, a token at a time, from its own cache.
struct Actor {
  std::vector<float> logp;                         // of every next token of a sequence
  std::vector<std::vector<float>> mtp_logp;        // of each MTP layer
  std::vector<std::vector<std::int32_t>> experts;  // [moe layer][T k]
};

Actor Decode(const engine::Weights& weights, std::span<const std::int32_t> ids) {
  const engine::ModelConfig& c = weights.config();
  kernels::ThreadPool pool(1);
  engine::Forward forward(weights, pool);
  const std::int64_t row = forward.CacheBytes(c.num_layers), mtp_row = forward.CacheBytes(1);
  const int length = int(ids.size()), depths = c.mtp_layers;
  engine::AlignedBytes cache(length * row), mtp_cache(depths * length * mtp_row);
  std::vector<const void*> keys(length), mtp_keys(depths * length);
  std::vector<float> hidden(c.hidden_size), normed(c.hidden_size), logits(c.vocab_size);
  const auto next = [&](const float* h, std::int32_t target, std::vector<float>* out) {
    float lse = 0, logp = 0;
    forward.Logits(h, 1, logits.data());
    kernels::LogSumExp(logits.data(), c.vocab_size, 1, c.vocab_size, 1.0f, &lse, pool);
    kernels::TokenLogProbs(logits.data(), c.vocab_size, 1, c.vocab_size, 1.0f, &target, &logp,
                           pool);
    out->push_back(logp);
  };
  Actor actor;
  actor.experts.resize(c.moe_layers());
  actor.mtp_logp.resize(depths);
  for (std::int32_t t = 0; t < length; ++t) {
    std::byte* latent = cache.data() + t * row;
    keys[t] = latent;
    const kernels::AttentionRow attention{keys.data(), t + 1};
    engine::ForwardRows rows{1, &ids[t], &t, &latent, &attention};
    forward.Hidden(rows, hidden.data(), [&](int layer, const std::int32_t* chosen) {
      actor.experts[layer].insert(actor.experts[layer].end(), chosen, chosen + c.top_k);
    });
    if (t + 1 < length) next(hidden.data(), ids[t + 1], &actor.logp);
    for (int d = 0; t + 2 + d < length && d < depths; ++d) {
      std::byte* mtp_latent = mtp_cache.data() + (d * length + t) * mtp_row;
      mtp_keys[d * length + t] = mtp_latent;
      const kernels::AttentionRow mtp_attention{mtp_keys.data() + d * length, t + 1};
      engine::ForwardRows mtp{1, &ids[t + 1 + d], &t, &mtp_latent, &mtp_attention};
      forward.Mtp(d, mtp, hidden.data(), normed.data());
      next(normed.data(), ids[t + 2 + d], &actor.mtp_logp[d]);
      hidden = normed;
    }
  }
  return actor;
}

/// Log-probs of every next token and the chosen experts, packed against token by token.
void ExpectTheEnginesBits(Policy& policy) {
  const engine::ModelConfig& config = policy.config();
  TinyBatch batch = RandomBatch(config, kLengths, 2);
  const Pack& pack = *batch.pack;
  batch.targets = {};
  for (int t = 0; t + 1 < pack.tokens(); ++t) {
    if (pack.position[t + 1] == 0) continue;
    batch.targets.row.push_back(t);
    batch.targets.target.push_back(pack.ids[t + 1]);
  }
  Policy::Request request;
  request.mtp = true;
  const Policy::Result found = policy.Forward(batch.pack, batch.targets, request);
  const float* logp = found.logp.data_ptr<float>();
  ASSERT_EQ(found.mtp_logp.size(), std::size_t(config.mtp_layers));
  std::vector<const float*> mtp;
  for (const torch::Tensor& layer : found.mtp_logp) mtp.push_back(layer.data_ptr<float>());
  for (int s = 0; s < pack.sequences(); ++s) {
    const int first = pack.start[s], length = pack.length(s);
    const Actor actor = Decode(policy.weights(), {pack.ids.data() + first, std::size_t(length)});
    for (float x : actor.logp) ASSERT_EQ(*logp++, x) << "sequence " << s;
    for (std::size_t d = 0; d < mtp.size(); ++d) {
      for (float x : actor.mtp_logp[d])
        ASSERT_EQ(*mtp[d]++, x) << "sequence " << s << " layer " << d;
    }
    for (std::size_t l = 0; l < actor.experts.size(); ++l) {
      const auto from = found.routing[l].ids.begin() + std::int64_t(first) * config.top_k;
      EXPECT_EQ(std::vector<std::int32_t>(from, from + std::int64_t(length) * config.top_k),
                actor.experts[l]);
    }
  }
  EXPECT_EQ(logp - found.logp.data_ptr<float>(), found.logp.numel());
  for (std::size_t d = 0; d < mtp.size(); ++d)
    EXPECT_EQ(mtp[d] - found.mtp_logp[d].data_ptr<float>(), found.mtp_logp[d].numel());
}

TEST(PolicyTest, GivesTheLogProbsAndExpertsOfTokenByTokenDecodingBitForBitInEveryMode) {
  for (const engine::ModelConfig& config : PolicyConfigs()) {
    for (const engine::Numerics& numerics : AllNumerics()) {
      SCOPED_TRACE(numerics.id());
      ExpectTheEnginesBits(*TinyPolicy(config, 1, 2, false, numerics));
    }
  }
}

TEST(PolicyTest, HasLogProbsOfItsOwnInEveryMode) {
  const engine::ModelConfig config = engine::TinyConfig();
  const TinyBatch batch = RandomBatch(config, kLengths, 2);
  std::vector<torch::Tensor> seen;
  for (const engine::Numerics& numerics : AllNumerics()) {
    const auto policy = TinyPolicy(config, 1, 2, false, numerics);
    const torch::Tensor logp = policy->Forward(batch.pack, batch.targets, {}).logp.detach();
    for (const torch::Tensor& other : seen) EXPECT_FALSE(torch::equal(logp, other));
    seen.push_back(logp);
  }
}

TEST(PolicyTest, TheGradientOfARoundedWeightMovesItsMaster) {
  const engine::ModelConfig config = engine::TinyConfig();
  const TinyBatch batch = RandomBatch(config, kLengths, 3);
  const auto exact = TinyPolicy(config, 4);
  AddGradients(*exact, batch, 0.3);
  for (const engine::Numerics& numerics : AllNumerics()) {
    SCOPED_TRACE(numerics.id());
    const auto policy = TinyPolicy(config, 4, 2, false, numerics);
    AddGradients(*policy, batch, 0.3);
    // The masters are those of fp32, and the whole gradient points roughly where fp32's does (this
    // model's weights are large, so that rounding them moves the log-probs too).
    EXPECT_TRUE(std::equal(policy->parameters().values(),
                           policy->parameters().values() + policy->parameters().size(),
                           exact->parameters().values()));
    const std::vector<float> a = Gradients(*policy), b = Gradients(*exact);
    const double inner = std::inner_product(a.begin(), a.end(), b.begin(), 0.0),
                 aa = std::inner_product(a.begin(), a.end(), a.begin(), 0.0),
                 bb = std::inner_product(b.begin(), b.end(), b.begin(), 0.0);
    EXPECT_GT(inner / std::sqrt(aa * bb), numerics.fp8() ? 0.5 : 0.9);
  }
}

TEST(PolicyTest, HasTheGradientOfLibTorchsPlainForm) {
  for (const engine::ModelConfig& config : PolicyConfigs()) {
    const TinyBatch batch = RandomBatch(config, kLengths, 3);
    const auto kernel = TinyPolicy(config, 4), plain = TinyPolicy(config, 4, 2, /*plain=*/true);
    const double a = AddGradients(*kernel, batch, 0.3), b = AddGradients(*plain, batch, 0.3);
    EXPECT_NEAR(a, b, 1e-5 * std::abs(b));
    for (const auto& entry : kernel->parameters().entries()) {
      const std::size_t n = std::size_t(entry.spec.count());
      EXPECT_LT(Distance({kernel->parameters().gradients() + entry.offset, n},
                         {plain->parameters().gradients() + entry.offset, n}),
                2e-5)
          << entry.spec.name;
    }
  }
}

TEST(PolicyTest, HasTheSlopeThatFiniteDifferencesShow) {
  const engine::ModelConfig config = engine::TinyConfig();
  const TinyBatch batch = RandomBatch(config, {9, 40, 17}, 5);
  const auto policy = TinyPolicy(config, 6);
  AddGradients(*policy, batch);
  const std::vector<float> gradient = Gradients(*policy);
  for (const auto& entry : policy->parameters().entries()) {
    const std::span<float> value = policy->parameters().MutableValue(entry);
    const std::vector<float> before(value.begin(), value.end());
    double norm = 0;
    for (std::size_t i = 0; i < value.size(); ++i)
      norm += double(gradient[entry.offset + i]) * gradient[entry.offset + i];
    norm = std::sqrt(norm);
    if (norm < 1e-2)
      continue;  // MTP, bias, experts that hardly act: below what FP32 losses resolve
    const double step = 0.05 / norm;  // along the gradient the loss should change by 0.1
    double loss[2];
    for (int side = 0; side < 2; ++side) {
      for (std::size_t i = 0; i < value.size(); ++i) {
        value[i] = float(before[i] + (side ? step : -step) * gradient[entry.offset + i] / norm);
      }
      policy->Refresh();
      torch::NoGradGuard guard;
      const torch::Tensor logp = policy->Forward(batch.pack, batch.targets, {}).logp;
      loss[side] = -logp.to(torch::kFloat64).sum().item<double>();
    }
    std::copy(before.begin(), before.end(), value.begin());
    EXPECT_NEAR(loss[1] - loss[0], 0.1, 0.004) << entry.spec.name;
  }
}

TEST(PolicyTest, APackHasTheLossAndGradientOfItsSequencesAlone) {
  const engine::ModelConfig config = engine::TinyConfig();
  const auto policy = TinyPolicy(config, 7);
  const TinyBatch batch = RandomBatch(config, kLengths, 8);
  const double packed = AddGradients(*policy, batch);
  const std::vector<float> together = Gradients(*policy);
  policy->parameters().ZeroGradients();
  double sum = 0;
  for (int s = 0; s < batch.pack->sequences(); ++s) {
    TinyBatch one;
    const int first = batch.pack->start[s];
    one.pack->Add({batch.pack->ids.data() + first, std::size_t(batch.pack->length(s))});
    for (int i = 0; i < batch.targets.count(); ++i) {
      if (batch.targets.row[i] < first || batch.targets.row[i] >= batch.pack->start[s + 1])
        continue;
      one.targets.row.push_back(batch.targets.row[i] - first);
      one.targets.target.push_back(batch.targets.target[i]);
    }
    if (one.targets.count() > 0) sum += AddGradients(*policy, one);
  }
  EXPECT_NEAR(packed, sum, 1e-9 * sum);  // the log-probs are the same bits
  EXPECT_LT(Distance(together, Gradients(*policy)), 1e-6);
}

/// The same samples of groups, each with its prompt and with one prompt a group.
struct Samples {
  TinyBatch whole, branched;
};

Samples RandomSamples(const engine::ModelConfig& config) {
  std::mt19937_64 rng(12);
  const auto random = [&](int n) {
    std::vector<std::int32_t> ids(n);
    for (auto& id : ids) id = std::int32_t(rng() % std::uint64_t(config.vocab_size));
    return ids;
  };
  Samples out;
  for (int prompt_length : {3, 1, 20}) {
    const std::vector<std::int32_t> prompt = random(prompt_length);
    const int trunk = out.branched.pack->Add(prompt);
    for (int length : {2, 1, 17, 3}) {
      std::vector<std::int32_t> ids = random(length);
      for (int j = 0; j < length; ++j) {
        out.whole.targets.row.push_back(out.whole.pack->tokens() + prompt_length - 1 + j);
        out.branched.targets.row.push_back(j == 0 ? out.branched.pack->start[trunk + 1] - 1
                                                  : out.branched.pack->tokens() + j - 1);
        for (TinyBatch* batch : {&out.whole, &out.branched})
          batch->targets.target.push_back(ids[j]);
      }
      out.branched.pack->AddBranch(trunk, std::span(ids).first(std::size_t(length - 1)));
      ids.insert(ids.begin(), prompt.begin(), prompt.end());
      out.whole.pack->Add(ids);
    }
  }
  return out;
}

TEST(PolicyTest, ABranchedPackHasTheBitsAndTheGradientOfWholeSequences) {
  for (const engine::ModelConfig& config : PolicyConfigs()) {
    for (const engine::Numerics& numerics : AllNumerics()) {
      SCOPED_TRACE(numerics.id());
      const auto policy = TinyPolicy(config, 3, 2, false, numerics);
      const Samples samples = RandomSamples(config);
      ASSERT_LT(samples.branched.pack->tokens(), samples.whole.pack->tokens());
      Policy::Request request;
      request.mtp = true;
      const auto forward = [&](const TinyBatch& batch) {
        return policy->Forward(batch.pack, batch.targets, request);
      };
      const Policy::Result whole = forward(samples.whole), branched = forward(samples.branched);
      EXPECT_TRUE(torch::equal(whole.logp, branched.logp));
      ASSERT_EQ(whole.mtp_logp.size(), branched.mtp_logp.size());
      for (std::size_t d = 0; d < whole.mtp_logp.size(); ++d)
        EXPECT_TRUE(torch::equal(whole.mtp_logp[d], branched.mtp_logp[d])) << d;
      AddGradients(*policy, samples.whole, 0.3);
      const std::vector<float> want = Gradients(*policy);
      policy->parameters().ZeroGradients();
      AddGradients(*policy, samples.branched, 0.3);
      EXPECT_LT(Distance(Gradients(*policy), want), 1e-6);
    }
  }
}

TEST(PolicyTest, ActivationsComputedAgainGiveTheSameGradientBits) {
  for (const engine::ModelConfig& config : PolicyConfigs()) {
    const auto kept = TinyPolicy(config, 3), again = TinyPolicy(config, 3, 2, false, {}, true);
    const TinyBatch batch = RandomSamples(config).branched;
    EXPECT_EQ(AddGradients(*kept, batch, 0.3), AddGradients(*again, batch, 0.3));
    EXPECT_EQ(Gradients(*kept), Gradients(*again));
    Policy::Request request;
    EXPECT_EQ(again->Forward(batch.pack, batch.targets, request).routing.size(),
              kept->Forward(batch.pack, batch.targets, request).routing.size());
  }
}

TEST(PolicyTest, GivesTheSameGradientBitsTwice) {
  const engine::ModelConfig config = engine::TinyConfig();
  const TinyBatch batch = RandomBatch(config, kLengths, 9);
  std::vector<float> first;
  for (int i = 0; i < 3; ++i) {
    const auto policy = TinyPolicy(config, 10);
    AddGradients(*policy, batch, 0.1);
    if (i == 0) first = Gradients(*policy);
    EXPECT_EQ(Gradients(*policy), first);
  }
}

TEST(PolicyTest, TheMtpLossLeavesTrunkEmbeddingAndHeadAlone) {
  const engine::ModelConfig config = engine::TinyConfig(true, 2);
  const auto policy = TinyPolicy(config, 11);
  const TinyBatch batch = RandomBatch(config, kLengths, 12);
  Policy::Request request;
  request.mtp = true;
  const Policy::Result result = policy->Forward(batch.pack, batch.targets, request);
  ASSERT_EQ(result.mtp_logp.size(), 2u);
  (result.mtp_logp[0].sum() + result.mtp_logp[1].sum()).backward();
  for (const auto& entry : policy->parameters().entries()) {
    const float* g = policy->parameters().gradients() + entry.offset;
    const bool moved = std::any_of(g, g + entry.spec.count(), [](float x) { return x != 0; });
    const bool expert =
        entry.spec.name.find(".experts.") != std::string::npos;  // may have had no token
    if (!policy->parameters().IsMtp(entry.spec.name)) {
      EXPECT_FALSE(moved) << entry.spec.name;
    } else if (!expert && entry.spec.kind != engine::TensorSpec::Kind::kRouterBias) {
      EXPECT_TRUE(moved) << entry.spec.name;
    }
  }
}

TEST(PolicyTest, ExpertsWithoutATokenHaveExactlyNoGradient) {
  const engine::ModelConfig config = engine::TinyConfig();
  const auto policy = TinyPolicy(config, 13);
  const TinyBatch batch = RandomBatch(config, {3}, 14);
  Policy::Result result = policy->Forward(batch.pack, batch.targets, {});
  ASSERT_GT(batch.targets.count(), 0);
  result.logp.sum().backward();
  int idle = 0;
  for (int e = 0; e < config.experts; ++e) {
    if (result.routing[0].loads[e] > 0) continue;
    ++idle;
    const auto& entry = policy->parameters().Find("model.layers.1.mlp.experts." +
                                                  std::to_string(e) + ".up_proj.weight");
    const float* g = policy->parameters().gradients() + entry.offset;
    EXPECT_TRUE(std::all_of(g, g + entry.spec.count(), [](float x) { return x == 0; }));
  }
  EXPECT_GT(idle, 0);
}

TEST(PolicyTest, AForwardWithoutGradientsGivesTheSameLogProbs) {
  const engine::ModelConfig config = engine::TinyConfig();
  const auto policy = TinyPolicy(config, 15);
  const TinyBatch batch = RandomBatch(config, kLengths, 16);
  Policy::Request still;
  still.gradients = false;
  const Policy::Result a = policy->Forward(batch.pack, batch.targets, {}),
                       b = policy->Forward(batch.pack, batch.targets, still);
  EXPECT_TRUE(torch::equal(a.logp, b.logp));
  EXPECT_FALSE(b.logp.requires_grad());
}

}  // namespace
}  // namespace temper::learner
