#include "learner/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "configs/error.h"
#include "engine/checkpoint.h"
#include "tests/engine/temp_dir.h"
#include "tests/learner/tiny_policy.h"

namespace temper::learner {
namespace {

namespace fs = std::filesystem;

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest() : config_(engine::TinyConfig()), policy_(config_, {}) {
    Parameters& parameters_ = policy_.parameters();
    for (std::int64_t i = 0; i < parameters_.size(); ++i) {
      parameters_.values()[i] = float(i % 1000) * 1e-3f;
      parameters_.moment1()[i] = float(i % 77);
      parameters_.moment2()[i] = float(i % 13);
    }
    fs::create_directories(Checkpoints());
  }

  std::string Run() const { return dir_.path(); }
  fs::path Checkpoints() const { return fs::path(dir_.path()) / "checkpoints"; }
  std::string SavePolicy(const TrainState& state, Policy& policy, int keep = 0) {
    CheckpointSaver saver(Run(), keep);
    saver.Save(state, std::make_shared<const Snapshot>(
                          policy, TEMPER_SOURCE_DIR "/configs/tokenizers/bytes"));
    return saver.Take(/*wait=*/true)->name;
  }
  std::string Save(std::int64_t step, int keep = 0) {
    TrainState state;
    state.step = step;
    state.version = std::uint32_t(step);
    state.epoch = 3;
    state.position = 14;
    state.numerics = "canon-1/fp32/cache-fp32";
    state.config = {{"seed", 7}};
    policy_.parameters().values()[0] = float(step);
    policy_.Refresh();
    return SavePolicy(state, policy_, keep);
  }
  static void Damage(const fs::path& file) {
    std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
    f.seekp(-5, std::ios::end);
    f.put('\x55');
  }

  TempDir dir_;
  engine::ModelConfig config_;
  Policy policy_;
};

TEST_F(CheckpointTest, GivesBackMastersMomentsAndState) {
  EXPECT_EQ(Save(100), "step-000100");
  const FoundCheckpoint found = FindCheckpoint(Run());
  EXPECT_EQ(fs::path(found.dir).filename(), "step-000100");
  EXPECT_EQ(found.state.step, 100);
  EXPECT_EQ(found.state.version, 100u);
  EXPECT_EQ(found.state.epoch, 3u);
  EXPECT_EQ(found.state.position, 14u);
  EXPECT_EQ(found.state.config["seed"], 7);
  Policy restored(config_, {});
  Restore(found.dir, "", restored);
  Parameters& other = restored.parameters();
  Parameters& parameters_ = policy_.parameters();
  const std::size_t n = std::size_t(parameters_.size());
  EXPECT_TRUE(std::equal(parameters_.values(), parameters_.values() + n, other.values()));
  EXPECT_TRUE(std::equal(parameters_.moment1(), parameters_.moment1() + n, other.moment1()));
  EXPECT_TRUE(std::equal(parameters_.moment2(), parameters_.moment2() + n, other.moment2()));
}

TEST_F(CheckpointTest, IsAModelFolderThatTheEngineReads) {
  Save(1);
  const std::string dir = (Checkpoints() / "latest").string();
  const engine::ModelConfig config = engine::ReadModelConfig(dir);
  Policy other(config, {});
  other.Load(dir);
  EXPECT_EQ(other.parameters().values()[0], 1.0f);
  EXPECT_TRUE(fs::exists(dir + "/tokenizer.json"));
}

/// Log-probs of a fixed pack.
torch::Tensor LogProbs(Policy& policy) {
  const TinyBatch batch = RandomBatch(policy.config(), {9, 40, 3}, 5);
  return policy.Forward(batch.pack, batch.targets, {}).logp.detach();
}

TEST_F(CheckpointTest, HoldsWhatTheActorsRanInEveryMode) {
  for (const engine::Numerics& numerics : AllNumerics()) {
    if (numerics.cache != kernels::CacheType::kF32) continue;
    SCOPED_TRACE(numerics.id());
    const auto policy = TinyPolicy(config_, 6, 2, false, numerics);
    TrainState state;
    state.config = Json::object();
    SavePolicy(state, *policy);
    const std::string dir = FindCheckpoint(Run()).dir;
    Policy::Options options;
    options.numerics = numerics;
    Policy other(engine::ReadModelConfig(dir), options);
    other.Load(dir);
    EXPECT_TRUE(torch::equal(LogProbs(other), LogProbs(*policy)));
    for (const Published::Tensor& tensor : policy->published().tensors()) {
      const auto a = policy->published().Bytes(tensor), b = other.published().Bytes(tensor);
      EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end())) << tensor.name;
    }
    // The engine reads the same bytes.
    const engine::Weights weights = engine::Weights::Load(dir, other.config(), numerics);
    EXPECT_EQ(std::memcmp(weights.layer(1).q_a.storage.data(),
                          policy->weights().layer(1).q_a.storage.data(),
                          weights.layer(1).q_a.storage.size()),
              0);
    const std::size_t n = std::size_t(policy->parameters().size());
    Policy restored(config_, options);
    Restore(dir, "", restored);
    Parameters& masters = restored.parameters();
    EXPECT_TRUE(std::equal(masters.values(), masters.values() + n, policy->parameters().values()));
  }
}

TEST_F(CheckpointTest, AMasterThatMovedLessThanItsRoundingKeepsItsByte) {
  const auto policy =
      TinyPolicy(config_, 6, 2, false, engine::ParseNumerics("fp8", "fp32", "pow2"));
  const auto bytes = [&] {
    std::vector<std::byte> all;
    for (const Published::Tensor& tensor : policy->published().tensors()) {
      const auto part = policy->published().Bytes(tensor);
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  };
  const std::vector<std::byte> before = bytes();
  EXPECT_EQ(before.size(), policy->published().size());
  for (std::int64_t i = 0; i < policy->parameters().size(); ++i)
    policy->parameters().values()[i] *= 1 + 1e-6f;
  policy->Refresh();
  const std::vector<std::byte> after = bytes();
  std::size_t changed = 0;
  for (std::size_t i = 0; i < after.size(); ++i) changed += before[i] != after[i];
  EXPECT_LT(double(changed), 0.01 * double(after.size()));
}

TEST_F(CheckpointTest, SkipsTornOnesForTheNewestWhole) {
  for (std::int64_t step : {1, 2, 3, 4, 5}) Save(step);
  Damage(Checkpoints() / "step-000005" / "optimizer.safetensors");
  fs::resize_file(Checkpoints() / "step-000004" / "model.safetensors", 100);
  fs::remove(Checkpoints() / "step-000003" / "manifest.json");
  testing::internal::CaptureStderr();
  EXPECT_EQ(FindCheckpoint(Run()).state.step, 2);
  const std::string said = testing::internal::GetCapturedStderr();
  for (const char* name : {"step-000005", "step-000004", "step-000003"})
    EXPECT_NE(said.find(name), std::string::npos) << said;
}

TEST_F(CheckpointTest, RefusesToResumeWithoutAValidOne) {
  EXPECT_THROW(FindCheckpoint(Run()), UserError);
  Save(7);
  fs::rename(Checkpoints() / "step-000007",
             Checkpoints() / "step-000007.tmp");  // as a crash leaves it
  EXPECT_THROW(FindCheckpoint(Run()), UserError);
}

TEST_F(CheckpointTest, LatestFollowsTheNewestAndOldOnesGo) {
  for (std::int64_t step : {10, 20, 30}) Save(step, /*keep=*/2);
  EXPECT_EQ(fs::read_symlink(Checkpoints() / "latest"), "step-000030");
  EXPECT_FALSE(fs::exists(Checkpoints() / "step-000010"));
  EXPECT_TRUE(fs::exists(Checkpoints() / "step-000020"));
}

TEST_F(CheckpointTest, ADiskThatFillsLeavesTheFormerOneAndNothingHalfWritten) {
  Save(3);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto on_signal = std::signal(SIGXFSZ, SIG_IGN);
  for (rlim_t bytes :
       {0, 50'000, 500'000}) {  // in the first file, in the weights, in the optimizer
    const rlimit tight{bytes, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
    EXPECT_THROW(Save(4), MachineError) << bytes;
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(Checkpoints()))
      names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    EXPECT_EQ(names, (std::vector<std::string>{"latest", "step-000003"})) << bytes;
    EXPECT_EQ(FindCheckpoint(Run()).state.step, 3);
  }
  std::signal(SIGXFSZ, on_signal);
  Save(4);
  EXPECT_EQ(FindCheckpoint(Run()).state.step, 4);
}

TEST_F(CheckpointTest, TakesNoOptimizerOfAnotherModel) {
  Save(1);
  Policy other(engine::TinyConfig(/*q_lora=*/false), {});
  EXPECT_THROW(Restore((Checkpoints() / "step-000001").string(), "", other), UserError);
}

TEST_F(CheckpointTest, KeepsTheVersionsThatTheSettingNames) {
  for (std::uint32_t version = 0; version < 5; ++version) {
    SaveVersion(Run(), version, policy_.published());
    PruneVersions(Run(), "2", version);
  }
  const fs::path versions = fs::path(Run()) / "versions";
  EXPECT_FALSE(fs::exists(versions / "v000002.safetensors"));
  EXPECT_TRUE(fs::exists(versions / "v000003.safetensors"));
  EXPECT_TRUE(fs::exists(versions / "v000004.safetensors"));
  PruneVersions(Run(), "all", 4);
  EXPECT_TRUE(fs::exists(versions / "v000003.safetensors"));
}

}  // namespace
}  // namespace temper::learner
