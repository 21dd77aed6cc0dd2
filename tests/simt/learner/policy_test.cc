// The policy on a device against the policy on the CPU.
#include <gtest/gtest.h>

#include <cmath>

#include "configs/error.h"
#include "tests/learner/tiny_policy.h"

namespace temper::learner {
namespace {

const std::vector<int> kLengths = {9, 1, 20, 2, 17};

double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    norm += double(b[i]) * b[i];
  }
  return std::sqrt(difference / (norm + 1e-24));
}

std::unique_ptr<Policy> On(const std::string& device, const engine::ModelConfig& config,
                           const engine::Numerics& numerics = {}, bool plain = false,
                           bool recompute = false) {
  return TinyPolicy(config, 4, 2, plain, numerics, recompute, device);
}

/// Groups of two samples behind one prompt.
TinyBatch Branched(const engine::ModelConfig& config) {
  std::mt19937_64 rng(12);
  TinyBatch batch;
  for (const int prompt : {3, 12}) {
    const auto random = [&](int n) {
      std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
      for (auto& id : ids) id = std::int32_t(rng() % std::uint64_t(config.vocab_size));
      return ids;
    };
    const int trunk = batch.pack->Add(random(prompt));
    for (const int length : {5, 1, 7}) {
      const std::vector<std::int32_t> ids = random(length);
      for (int j = 0; j < length; ++j) {
        batch.targets.row.push_back(j == 0 ? batch.pack->start[trunk + 1] - 1
                                           : batch.pack->tokens() + j - 1);
        batch.targets.target.push_back(ids[std::size_t(j)]);
      }
      batch.pack->AddBranch(trunk, std::span(ids).first(std::size_t(length - 1)));
    }
  }
  return batch;
}

void ExpectSameForward(Policy& device, Policy& host, const TinyBatch& batch,
                       Policy::Request request = {}) {
  request.mtp = true;
  const Policy::Result a = device.Forward(batch.pack, batch.targets, request),
                       b = host.Forward(batch.pack, batch.targets, request);
  EXPECT_TRUE(torch::equal(a.logp, b.logp));
  EXPECT_TRUE(torch::equal(a.entropy, b.entropy));
  EXPECT_EQ(a.correct, b.correct);
  EXPECT_EQ(a.mtp_correct, b.mtp_correct);
  ASSERT_EQ(a.mtp_logp.size(), b.mtp_logp.size());
  for (std::size_t d = 0; d < a.mtp_logp.size(); ++d)
    EXPECT_TRUE(torch::equal(a.mtp_logp[d], b.mtp_logp[d])) << d;
  ASSERT_EQ(a.routing.size(), b.routing.size());
  for (std::size_t l = 0; l < a.routing.size(); ++l) {
    EXPECT_EQ(a.routing[l].ids, b.routing[l].ids);
    EXPECT_EQ(a.routing[l].loads, b.routing[l].loads);
    EXPECT_EQ(a.routing[l].dropped, b.routing[l].dropped);
    EXPECT_EQ(a.routing[l].balance_loss, b.routing[l].balance_loss);
  }
}

TEST(DevicePolicyTest, GivesTheCpusBitsAndGradientInEveryMode) {
  const std::vector<engine::ModelConfig> configs = PolicyConfigs();
  for (std::size_t c = 0; c < configs.size(); ++c) {
    std::vector<engine::Numerics> modes = AllNumerics();
    if (c > 0) modes = {modes.front(), modes.back()};
    for (const engine::Numerics& numerics : modes) {
      SCOPED_TRACE(numerics.id());
      const auto device = On("cuda:0", configs[c], numerics),
                 host = On("cpu", configs[c], numerics);
      ExpectSameForward(*device, *host, RandomBatch(configs[c], kLengths, 2));
      const TinyBatch batch = Branched(configs[c]);
      for (int round = 0; round < 2; ++round) {  // the second adds to the first
        EXPECT_EQ(AddGradients(*device, batch, 0.3), AddGradients(*host, batch, 0.3));
        EXPECT_LT(Distance(Gradients(*device), Gradients(*host)), 1e-5);
      }
    }
  }
}

TEST(DevicePolicyTest, ActivationsComputedAgainChangeNothing) {
  const engine::ModelConfig config = engine::TinyConfig();
  const auto kept = On("cuda:0", config), again = On("cuda:0", config, {}, false, true);
  const TinyBatch batch = Branched(config);
  EXPECT_EQ(AddGradients(*kept, batch, 0.3), AddGradients(*again, batch, 0.3));
  EXPECT_EQ(Gradients(*kept), Gradients(*again));
}

TEST(DevicePolicyTest, LibTorchsForwardRunsThereToo) {
  const engine::ModelConfig config = engine::TinyConfig();
  for (const engine::Numerics& numerics : AllNumerics()) {
    SCOPED_TRACE(numerics.id());
    const auto device = On("cuda:0", config, numerics, true),
               host = On("cpu", config, numerics, true);
    const TinyBatch batch = RandomBatch(config, kLengths, 3);
    EXPECT_NEAR(AddGradients(*device, batch, 0.3), AddGradients(*host, batch, 0.3), 1e-4);
    EXPECT_LT(Distance(Gradients(*device), Gradients(*host)), 1e-6);
  }
}

TEST(DevicePolicyTest, TakesEveryFormOfTargetAndTheLossesOfRouters) {
  const engine::ModelConfig config = engine::TinyConfig();
  const auto device = On("cuda:0", config), host = On("cpu", config);
  TinyBatch batch = RandomBatch(config, kLengths, 5);
  const std::size_t count = std::size_t(batch.targets.count());
  std::vector<std::vector<std::int32_t>> kept(count);
  std::vector<WeightedIds> soft(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t target = batch.targets.target[i];
    kept[i] = {std::min(target, 3), std::max(target, 3) + 1};
    kept[i].insert(kept[i].begin() + 1, target);
    std::sort(kept[i].begin(), kept[i].end());
    kept[i].erase(std::unique(kept[i].begin(), kept[i].end()), kept[i].end());
    if (kept[i].back() >= config.vocab_size) kept[i].pop_back();
    if (i % 2) soft[i] = {{1, target == 5 ? 6 : 5}, {0.25f, 0.5f}};
  }
  std::vector<Policy::Request> requests(4);
  requests[0].forms.kept = std::make_shared<const decltype(kept)>(kept);
  requests[1].forms.soft = std::make_shared<const decltype(soft)>(soft);
  requests[2].balance.expert = 0.1;
  requests[2].balance.sequences = double(kLengths.size());
  requests[3].capacity = 0.8;
  for (std::size_t r = 0; r < requests.size(); ++r) {
    SCOPED_TRACE(r);
    requests[r].temperature = 0.7f;
    ExpectSameForward(*device, *host, batch, requests[r]);
    for (Policy* policy : {device.get(), host.get()}) {
      policy->parameters().ZeroGradients();
      const Policy::Result found = policy->Forward(batch.pack, batch.targets, requests[r]);
      (found.logp.sum() + 0.3 * found.entropy.sum()).backward();
      policy->CollectGradients();
    }
    EXPECT_LT(Distance(Gradients(*device), Gradients(*host)), 1e-5);
  }
}

TEST(DevicePolicyTest, ForwardsTheWeightsOfTheLastRefresh) {
  const engine::ModelConfig config = engine::TinyConfig();
  const engine::Numerics numerics = engine::ParseNumerics("fp8", "bf16", "pow2");
  const auto device = On("cuda:0", config, numerics), host = On("cpu", config, numerics);
  const TinyBatch batch = Branched(config);
  ExpectSameForward(*device, *host, batch);
  FillTiny(*device, 9);
  FillTiny(*host, 9);
  ExpectSameForward(*device, *host, batch);
}

TEST(DevicePolicyTest, ReplaysExpertsAsTheCpuDoes) {
  const engine::ModelConfig config = engine::TinyConfig();
  const auto device = On("cuda:0", config), host = On("cpu", config);
  TinyBatch batch = RandomBatch(config, kLengths, 5);
  for (int t = 0; t < batch.pack->tokens(); ++t) {
    for (int l = 0; l < config.moe_layers(); ++l) {
      for (int j = 0; j < config.top_k; ++j)
        batch.pack->experts.push_back(std::uint16_t((t + l) % 2 + 2 * j));
    }
  }
  ExpectSameForward(*device, *host, batch);
  EXPECT_EQ(device->Forward(batch.pack, batch.targets, {}).routing[0].ids[0],
            std::int32_t(batch.pack->experts[0]));
}

TEST(DevicePolicyTest, ADeviceThatIsNotThereIsTheMachinesFault) {
  EXPECT_THROW(On("cuda:7", engine::TinyConfig()), MachineError);
  EXPECT_THROW(On("gpu", engine::TinyConfig()), UserError);
}

}  // namespace
}  // namespace temper::learner
