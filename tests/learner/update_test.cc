#include "learner/update.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/learner/rank_threads.h"
#include "tests/learner/tiny_policy.h"

namespace temper::learner {
namespace {

constexpr const char* kBias = "model.layers.1.mlp.gate.e_score_correction_bias";

std::vector<float> Value(Policy& policy, const std::string& name) {
  const auto value = policy.parameters().Value(policy.parameters().Find(name));
  return {value.begin(), value.end()};
}

ExpertLoads Loads(const engine::ModelConfig& config, std::vector<std::int64_t> first_layer) {
  Policy::Result result;
  for (int i = config.first_dense; i < config.num_layers; ++i) {
    result.routing.push_back({{}, std::vector<std::int64_t>(config.experts, 1)});
  }
  result.routing[0].loads = std::move(first_layer);
  ExpertLoads loads;
  loads.Add({}, result.routing);
  return loads;
}

TEST(UpdateTest, RaisesTheBiasOfIdleExpertsAndLowersThatOfBusyOnes) {
  const engine::ModelConfig config = engine::TinyConfig();
  const auto policy = TinyPolicy(config, 1);
  const std::vector<float> before = Value(*policy, kBias),
                           other =
                               Value(*policy, "model.layers.2.mlp.gate.e_score_correction_bias");
  configs::Optimizer optimizer;
  optimizer.router_bias_update_speed = 0.01;
  const ExpertLoads loads = Loads(config, {0, 10, 20, 10, 10, 10, 10, 10});
  EXPECT_NEAR(loads.Metrics(config)["moe/max_vio_batch"].get<double>(), 1.0, 1e-12);
  Update(*policy, optimizer, 1, loads, 0.5);
  const std::vector<float> after = Value(*policy, kBias);
  EXPECT_FLOAT_EQ(after[0], before[0] + 0.01f);
  EXPECT_FLOAT_EQ(after[2], before[2] - 0.01f);
  EXPECT_EQ(after[1], before[1]);
  EXPECT_EQ(Value(*policy, "model.layers.2.mlp.gate.e_score_correction_bias"), other);
  EXPECT_EQ(policy->weights().layer(1).router_bias, after);
}

TEST(UpdateTest, TellsViolationsOfLayersAndOfSequencesWithTheirTrunk) {
  const engine::ModelConfig config = engine::TinyConfig();
  ASSERT_EQ(config.experts, 8);
  Pack pack;
  const std::int32_t id = 0;
  pack.Add({&id, 1});
  pack.AddBranch(0, {&id, 1});
  pack.AddBranch(0, {&id, 1});
  Policy::Result result;
  for (int i = config.first_dense; i < config.num_layers; ++i)
    result.routing.push_back({{0, 1, 2, 3, 0, 1}, {2, 2, 1, 1, 0, 0, 0, 0}});
  ExpertLoads loads;
  loads.Add(pack, result.routing);
  const Json metrics = loads.Metrics(config);
  const std::string layer = "moe/max_vio_batch/layer_" + std::to_string(config.first_dense);
  EXPECT_NEAR(metrics[layer].get<double>(), 2.0 * 8 / 6 - 1, 1e-12);
  // {0, 1, 2, 3} at the first leaf, {0, 1, 0, 1} at the second.
  EXPECT_NEAR(metrics["moe/max_vio_seq"].get<double>(), (1.0 + 3.0) / 2, 1e-12);
}

TEST(UpdateTest, MovesNothingWhenTheGradientIsNotFinite) {
  const engine::ModelConfig config = engine::TinyConfig();
  const auto policy = TinyPolicy(config, 2);
  const std::vector<float> before(policy->parameters().values(),
                                  policy->parameters().values() + policy->parameters().size());
  policy->parameters().gradients()[5] = NAN;
  const UpdateReport report = Update(*policy, {}, 1, Loads(config, {0, 1, 2, 3, 4, 5, 6, 7}), 0.5);
  EXPECT_FALSE(report.applied);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), policy->parameters().values()));
  EXPECT_EQ(policy->parameters().gradients()[5], 0.0f);
}

TEST(UpdateTest, LeavesAnUntrainedMtpLayerAlone) {
  const engine::ModelConfig config = engine::TinyConfig();
  const auto policy = TinyPolicy(config, 3);
  const std::vector<float> before = Value(*policy, "model.layers.3.eh_proj.weight");
  AddGradients(*policy, RandomBatch(config, {9, 12}, 4), 0.1);
  configs::Optimizer optimizer;
  optimizer.mtp_loss_scale = 0;
  Update(*policy, optimizer, 1, {}, 0.5);
  EXPECT_EQ(Value(*policy, "model.layers.3.eh_proj.weight"), before);
}

TEST(UpdateTest, PacksTheNewWeightsAndLowersTheLoss) {
  const engine::ModelConfig config = engine::TinyConfig();
  const auto policy = TinyPolicy(config, 5);
  const TinyBatch batch = RandomBatch(config, {30, 20}, 6);
  configs::Optimizer optimizer;
  optimizer.learning_rate = 1e-3;
  std::vector<double> losses;
  for (int step = 1; step <= 5; ++step) {
    losses.push_back(AddGradients(*policy, batch));
    const UpdateReport report = Update(*policy, optimizer, step, {}, 0.5);
    EXPECT_TRUE(report.applied);
    EXPECT_GT(report.gradient_norm, 0);
  }
  EXPECT_LT(losses.back(), losses.front());
  EXPECT_EQ(policy->weights().norm(), Value(*policy, "model.norm.weight"));
}

TEST(UpdateTest, RanksWithAShardOfTheMomentsEachTakeTheStepsThatOneTakes) {
  const engine::ModelConfig config = engine::TinyConfig();
  configs::Optimizer optimizer;
  optimizer.learning_rate = 1e-3;
  optimizer.max_grad_norm = 0;  // the norm alone is added up in another order
  const auto one = TinyPolicy(config, 5);
  const std::int64_t size = one->parameters().size();
  const auto gradient = [](std::int64_t i, int step) { return std::sin(float(i % 1009 + step)); };
  std::vector<double> norms;
  for (int step = 1; step <= 3; ++step) {
    for (std::int64_t i = 0; i < size; ++i) one->parameters().gradients()[i] = gradient(i, step);
    norms.push_back(Update(*one, optimizer, step, {}, 0.5).gradient_norm);
  }
  RunRanks(3, [&](Communicator& ranks) {
    Policy::Options options;
    options.shard = ranks.shard();
    Policy policy(config, options);
    FillTiny(policy, 5);
    Parameters& parameters = policy.parameters();
    for (int step = 1; step <= 3; ++step) {
      for (std::int64_t i = ranks.rank(); i < size; i += 3)
        parameters.gradients()[i] = gradient(i, step);
      const UpdateReport report = Update(policy, optimizer, step, {}, 0.5, &ranks);
      EXPECT_NEAR(report.gradient_norm, norms[std::size_t(step - 1)], 1e-9);
    }
    EXPECT_TRUE(
        std::equal(parameters.values(), parameters.values() + size, one->parameters().values()));
    std::vector<float> moments(ranks.root() ? std::size_t(size) : 0);
    ranks.ToRoot(parameters.moment2(), size, moments.data());
    if (ranks.root()) {
      EXPECT_TRUE(std::equal(moments.begin(), moments.end(), one->parameters().moment2()));
    }
  });
}

}  // namespace
}  // namespace temper::learner
