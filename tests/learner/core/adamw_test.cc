#include "learner/core/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace temper::learner {
namespace {

TEST(AdamwTest, FollowsTheFormulaInDoubleForManySteps) {
  constexpr int kCount = 37;
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  std::vector<float> value(kCount), m(kCount), v(kCount), grad(kCount);
  for (float& x : value) x = normal(rng);
  std::vector<double> wanted(value.begin(), value.end()), wm(kCount), wv(kCount);
  const std::vector<AdamwSegment> segments = {{0, 20, true, true}, {20, kCount, false, true}};
  for (int n = 1; n <= 50; ++n) {
    AdamwStep step;
    step.number = n;
    step.learning_rate = 1e-2;
    step.gradient_scale = 0.5;
    for (float& x : grad) x = normal(rng);
    Adamw(segments, step, grad.data(), value.data(), m.data(), v.data());
    for (int i = 0; i < kCount; ++i) {
      const double g = grad[i] * 0.5;
      wm[i] = 0.9 * wm[i] + 0.1 * g;
      wv[i] = 0.95 * wv[i] + 0.05 * g * g;
      if (i < 20) wanted[i] -= 1e-2 * 0.1 * wanted[i];
      wanted[i] -= 1e-2 * (wm[i] / (1 - std::pow(0.9, n))) /
                   (std::sqrt(wv[i] / (1 - std::pow(0.95, n))) + 1e-8);
    }
  }
  for (int i = 0; i < kCount; ++i) EXPECT_NEAR(value[i], wanted[i], 2e-5) << i;
}

TEST(AdamwTest, LeavesUntrainedSegmentsAlone) {
  std::vector<float> value = {1, 2, 3, 4}, m(4), v(4), grad = {1, 1, 1, 1};
  AdamwStep step;
  step.learning_rate = 0.1;
  Adamw(std::vector<AdamwSegment>{{0, 2, true, false}, {2, 4, true, true}}, step, grad.data(),
        value.data(), m.data(), v.data());
  EXPECT_EQ(value[0], 1);
  EXPECT_EQ(value[1], 2);
  EXPECT_NE(value[2], 3);
  EXPECT_EQ(m[0], 0);
}

TEST(AdamwTest, NormCountsTrainedSegmentsOnlyAndSeesWhatIsNotFinite) {
  std::vector<float> grad(10000, 0.5f);
  const std::vector<AdamwSegment> segments = {
      {0, 5000, true, true}, {5000, 7000, true, false}, {7000, 10000, false, true}};
  EXPECT_NEAR(GradientNorm(segments, grad.data()), std::sqrt(8000 * 0.25), 1e-9);
  grad[6000] = NAN;
  EXPECT_TRUE(std::isfinite(GradientNorm(segments, grad.data())));
  grad[9999] = INFINITY;
  EXPECT_FALSE(std::isfinite(GradientNorm(segments, grad.data())));
}

TEST(AdamwTest, ClipsOnlyNormsOverTheLimit) {
  EXPECT_EQ(ClipScale(0.5, 1.0), 1.0);
  EXPECT_NEAR(ClipScale(4.0, 1.0), 0.25, 1e-6);
  EXPECT_EQ(ClipScale(4.0, 0.0), 1.0);
}

TEST(AdamwTest, WarmsUpThenStaysOrFallsToTheFloor) {
  configs::Optimizer config;
  config.learning_rate = 1.0;
  config.warmup_steps = 4;
  config.max_steps = 11;
  EXPECT_NEAR(LearningRate(config, 1), 0.2, 1e-12);
  EXPECT_NEAR(LearningRate(config, 4), 0.8, 1e-12);
  EXPECT_EQ(LearningRate(config, 5), 1.0);
  EXPECT_EQ(LearningRate(config, 11), 1.0);
  config.lr_scheduler_type = "cosine";
  config.min_lr_ratio = 0.1;
  EXPECT_NEAR(LearningRate(config, 5), 1.0, 1e-12);
  EXPECT_NEAR(LearningRate(config, 8), 0.55, 1e-12);
  EXPECT_NEAR(LearningRate(config, 11), 0.1, 1e-12);
}

}  // namespace
}  // namespace temper::learner
