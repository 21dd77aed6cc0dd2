#include "learner/core/probe_loss.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <map>

#include "configs/error.h"
#include "engine/safetensors.h"
#include "tests/learner/core/loss_fixture.h"

namespace temper::learner {
namespace {

using engine::Dtype;

struct Tensor {
  Dtype dtype = Dtype::kF32;
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};
using Tensors = std::map<std::string, Tensor>;

class ProbeLossTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("temper-probe-loss-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
    const Batch batch = FixtureBatch(LoadFixture());
    const std::vector<float> rewards(batch.rewards.begin(), batch.rewards.end());
    tensors_ = {{"logp", {Dtype::kF32, {4, 3}, batch.logp}},
                {"old_logp", {Dtype::kF32, {4, 3}, batch.old_logp}},
                {"rollout_logp", {Dtype::kF32, {4, 3}, batch.rollout_logp}},
                {"ref_logp", {Dtype::kF32, {4, 3}, batch.ref_logp}},
                {"mask", {Dtype::kF32, {4, 3}, batch.mask}},
                {"rewards", {Dtype::kF32, {4}, rewards}}};
    config_ = GrpoOf({{"num_generations", 2}, {"epsilon_high", 0.28}});
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  void Write() const {
    std::vector<engine::SafetensorsWriter::Entry> entries;
    for (const auto& [name, tensor] : tensors_) {
      entries.push_back({name, tensor.dtype, tensor.shape});
    }
    engine::SafetensorsWriter writer(Path("in"), entries);
    for (const auto& [name, tensor] : tensors_) writer.WriteFloats(tensor.values);
    writer.Close();
  }

  Json Run() const {
    Write();
    return ProbeLoss(config_, Path("in"), Path("out"));
  }

  /// The error of a broken batch: one line that names the file and holds `part`.
  void ExpectRefused(const std::string& part) const {
    try {
      Run();
      ADD_FAILURE() << "accepted; expected: " << part;
    } catch (const UserError& error) {
      const std::string what = error.what();
      EXPECT_EQ(what.find(Path("in") + ": "), 0u) << what;
      EXPECT_NE(what.find(part), std::string::npos) << what;
      EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    }
    EXPECT_FALSE(std::filesystem::exists(Path("out")));
  }

  std::filesystem::path folder_;
  Tensors tensors_;
  configs::Grpo config_;
};

TEST_F(ProbeLossTest, WritesWhatTheLossAndTheAdvantagesGive) {
  config_.scale_rewards = "none";
  tensors_["rewards"].values = {1, -1, 0.5, -0.5};  // their groups' means are 0
  const Json result = Run();
  EXPECT_NEAR(result.at("loss").get<double>(), -0.09458283, 3e-7);
  EXPECT_NEAR(result.at("actor/pg_clipfrac").get<double>(), 2.0 / 9, 1e-12);
  EXPECT_EQ(result.at("reward").get<double>(), 0);
  const engine::SafetensorsFile out(Path("out"));
  EXPECT_EQ(out.tensors().size(), 3u);
  EXPECT_EQ(out.tensors().at("loss").shape, (std::vector<std::int64_t>{1}));
  EXPECT_EQ(out.tensors().at("grad").shape, (std::vector<std::int64_t>{4, 3}));
  EXPECT_FLOAT_EQ(out.ReadFloats("loss").at(0), result.at("loss").get<float>());
  EXPECT_NEAR(out.ReadFloats("grad").at(1), -0.105692, 1e-6);
  EXPECT_EQ(out.ReadFloats("advantages"), (std::vector<float>{1, -1, 0.5, -0.5}));
}

TEST_F(ProbeLossTest, TakesTheKlOutOfTheRewards) {
  config_.beta = 0.5;
  config_.kl_in_reward = true;
  config_.kl_estimator = "k1";
  config_.scale_rewards = "none";
  const Json result = Run();
  EXPECT_FALSE(result.contains("kl"));
  // sum(old - ref) a row: -0.1, 0.2, 0.05, -0.5
  const std::vector<float> got = engine::SafetensorsFile(Path("out")).ReadFloats("advantages");
  const double r[] = {1 + 0.05, 0 - 0.1, 0.5 - 0.025, 0.25 + 0.25};
  EXPECT_NEAR(got[0], (r[0] - r[1]) / 2, 1e-6);
  EXPECT_NEAR(got[3], (r[3] - r[2]) / 2, 1e-6);
}

TEST_F(ProbeLossTest, NeedsTheReferenceOnlyWithAKlTerm) {
  tensors_.erase("ref_logp");
  EXPECT_NO_THROW(Run());
  std::filesystem::remove(Path("out"));
  config_.beta = 0.1;
  ExpectRefused("ref_logp: missing");
}

TEST_F(ProbeLossTest, NamesTheTensorThatIsMissing) {
  for (const char* name : {"logp", "old_logp", "rollout_logp", "mask", "rewards"}) {
    const Tensors whole = tensors_;
    tensors_.erase(name);
    ExpectRefused(std::string(name) + ": missing");
    tensors_ = whole;
  }
}

TEST_F(ProbeLossTest, NamesTheTensorOfAnotherDtypeOrShape) {
  const Tensors whole = tensors_;
  tensors_["mask"].dtype = Dtype::kBf16;
  ExpectRefused("mask: found BF16; must be F32");
  tensors_ = whole;
  tensors_["old_logp"].shape = {3, 4};
  ExpectRefused("old_logp: found shape [3, 4]; must be [4, 3] as logp");
  tensors_ = whole;
  tensors_["logp"].shape = {12};
  ExpectRefused("logp: found shape [12]; must be [N, T]");
  tensors_ = whole;
  tensors_["rewards"].shape = {4, 1};
  ExpectRefused("rewards: found shape [4, 1]; must be [4]");
}

TEST_F(ProbeLossTest, RefusesRowsThatAreNotWholeGroups) {
  config_.num_generations = 3;
  ExpectRefused("rewards: found 4 rows; must be a multiple of grpo.num_generations = 3");
  config_.num_generations = 1;
  ExpectRefused("grpo.num_generations: found 1");
}

TEST_F(ProbeLossTest, RefusesInfiniteRewardsAndSoftMasks) {
  const Tensors whole = tensors_;
  tensors_["rewards"].values[2] = -std::numeric_limits<float>::infinity();
  ExpectRefused("rewards: found an infinite value in row 2");
  tensors_ = whole;
  tensors_["mask"].values[4] = 0.5f;
  ExpectRefused("mask: found 0.500000 in row 1, column 1; must be 0 or 1");
}

}  // namespace
}  // namespace temper::learner
