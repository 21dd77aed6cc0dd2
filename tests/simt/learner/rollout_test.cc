// What actors generate on a device, judged by the policy on a device: the difference is exactly 0.
#include <gtest/gtest.h>

#include <memory>

#include "tests/learner/tiny_policy.h"
#include "tests/simt/engine/engines.h"

namespace temper::learner {
namespace {

/// The shape that attention on tensor cores takes.
engine::ModelConfig Wide() {
  Json j = engine::TinyConfig().raw;
  j["kv_lora_rank"] = 512;
  j["qk_rope_head_dim"] = 64;
  j["num_hidden_layers"] = 2;
  return engine::ParseModelConfig(j, "wide");
}

void ExpectNoMismatch(const engine::ModelConfig& config, const engine::Numerics& numerics) {
  SCOPED_TRACE(numerics.id());
  const auto policy = TinyPolicy(config, 4, 2, false, numerics, false, "cuda:0");
  const std::shared_ptr<engine::Weights> weights(std::shared_ptr<void>(),
                                                 const_cast<engine::Weights*>(&policy->weights()));
  const std::vector<engine::GroupRequest> groups = {engine::Group(1, 20, 3, 6),
                                                    engine::Group(2, 3, 2, 9)};
  const engine::Results rollouts = engine::Drive(weights, engine::On("cuda:0"), groups);
  TinyBatch batch;
  std::vector<float> sampled;
  for (const engine::GroupRequest& group : groups) {
    const int trunk = batch.pack->Add(group.prompt);
    for (const std::uint32_t s : group.samples) {
      const engine::FinishedSample& rollout = rollouts.at({group.group, s});
      const std::span<const std::int32_t> ids = rollout.ids;
      for (std::size_t j = 0; j < ids.size(); ++j) {
        batch.targets.row.push_back(j == 0 ? batch.pack->start[trunk + 1] - 1
                                           : batch.pack->tokens() + int(j) - 1);
        batch.targets.target.push_back(ids[j]);
        sampled.push_back(rollout.logp[j]);
      }
      batch.pack->AddBranch(trunk, ids.first(ids.size() - 1));
    }
  }
  const Policy::Result found = policy->Forward(batch.pack, batch.targets, {});
  ASSERT_EQ(std::size_t(found.logp.numel()), sampled.size());
  EXPECT_GT(sampled.size(), 20u);
  EXPECT_TRUE(torch::equal(found.logp.detach(), torch::tensor(sampled)));
}

TEST(DeviceRolloutTest, HaveThePolicysLogProbsInEveryModeAndBothArithmetics) {
  for (const engine::Numerics& canonical : AllNumerics()) {
    ExpectNoMismatch(engine::TinyConfig(), canonical);
    if (!canonical.rounds()) continue;  // cuda-1 has no fp32
    engine::Numerics tensor = canonical;
    tensor.tensor = true;
    ExpectNoMismatch(engine::TinyConfig(), tensor);
    if (canonical.mode != engine::Mode::kFp8) ExpectNoMismatch(Wide(), tensor);
  }
}

TEST(DeviceRolloutTest, TensorCoresHaveAnIdAndBitsOfTheirOwn) {
  engine::Numerics tensor = engine::ParseNumerics("bf16", "bf16", "pow2");
  const auto canonical = TinyPolicy(Wide(), 4, 2, false, tensor, false, "cuda:0");
  tensor.tensor = true;
  const auto fast = TinyPolicy(Wide(), 4, 2, false, tensor, false, "cuda:0");
  const TinyBatch batch = RandomBatch(Wide(), {9, 20}, 2);
  const torch::Tensor a = canonical->Forward(batch.pack, batch.targets, {}).logp,
                      b = fast->Forward(batch.pack, batch.targets, {}).logp;
  EXPECT_FALSE(torch::equal(a, b));
  EXPECT_LT((a - b).abs().max().item<float>(), 0.2);
}

}  // namespace
}  // namespace temper::learner
