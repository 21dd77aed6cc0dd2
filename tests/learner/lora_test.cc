#include "learner/lora.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <utility>

#include "configs/error.h"
#include "engine/adapter.h"
#include "engine/checkpoint.h"
#include "learner/checkpoint.h"
#include "learner/update.h"
#include "tests/engine/temp_dir.h"
#include "tests/error_of.h"
#include "tests/learner/tiny_policy.h"

namespace temper::learner {
namespace {

namespace fs = std::filesystem;

class LoraTest : public testing::Test {
 protected:
  LoraTest() : config_(engine::TinyConfig()) {
    options_.lora.r = 3;
    options_.lora.lora_alpha = 6;
    options_.lora.target_modules = {"q_b_proj", "o_proj", "shared_experts.down_proj", "up_proj"};
    // The base model as a folder.
    const auto base = TinyPolicy(config_, 11);
    Snapshot(*base, TEMPER_SOURCE_DIR "/configs/tokenizers/bytes").Write(Base());
  }

  std::string Base() {
    fs::create_directories(dir_.path() + "/base");
    return dir_.path() + "/base";
  }
  std::unique_ptr<Policy> Adapted(engine::Numerics numerics = {}, bool recompute = false) {
    Policy::Options options = options_;
    options.numerics = numerics;
    options.recompute = recompute;
    auto policy = std::make_unique<Policy>(config_, options);
    policy->Load(Base());
    policy->BeginAdapters(5);
    return policy;
  }
  void Train(Policy& policy, int first, int last) {
    configs::Optimizer optimizer;
    optimizer.learning_rate = 1e-2;
    for (int step = first; step <= last; ++step) {
      AddGradients(policy, RandomBatch(config_, {20, 9, 31}, std::uint64_t(step)));
      EXPECT_TRUE(Update(policy, optimizer, step, {}, 0.5).applied);
    }
  }
  static torch::Tensor LogProbs(Policy& policy) {
    const TinyBatch batch = RandomBatch(policy.config(), {9, 40, 3}, 5);
    return policy.Forward(batch.pack, batch.targets, {}).logp.detach();
  }

  TempDir dir_;
  engine::ModelConfig config_;
  Policy::Options options_;
};

TEST_F(LoraTest, ANewAdapterChangesNoBit) {
  for (const engine::Numerics& numerics : AllNumerics()) {
    Policy::Options options;
    options.numerics = numerics;
    Policy base(config_, options);
    base.Load(Base());
    EXPECT_TRUE(torch::equal(LogProbs(*Adapted(numerics)), LogProbs(base))) << numerics.id();
  }
}

TEST_F(LoraTest, MovesTheTargetedMatricesOfMainLayersAlone) {
  const auto policy = Adapted();
  const std::vector<float> before(policy->parameters().values(),
                                  policy->parameters().values() + policy->parameters().size());
  Train(*policy, 1, 2);
  int moved = 0;
  for (const Parameters::Entry& entry : policy->parameters().entries()) {
    const auto now = policy->parameters().Value(entry);
    const bool same = std::equal(now.begin(), now.end(), before.begin() + entry.offset);
    EXPECT_EQ(!same, policy->lora()->Targets(entry.spec.name)) << entry.spec.name;
    moved += !same;
    if (policy->parameters().IsMtp(entry.spec.name)) {
      EXPECT_TRUE(same);
    }
  }
  EXPECT_GT(moved, 4);
}

TEST_F(LoraTest, HasTheGradientsOfTheFactors) {
  for (const bool recompute : {false, true}) {
    const auto policy = Adapted({}, recompute);
    Train(*policy, 1, 2);  // B is not zero any more
    const TrainedBuffers trained = policy->trained();
    const std::vector<float> values(trained.values, trained.values + trained.size);
    // The same weights in a policy that trains them all give dW.
    Policy whole(config_, {});
    std::copy_n(policy->parameters().values(), whole.parameters().size(),
                whole.parameters().values());
    whole.Refresh();
    const TinyBatch batch = RandomBatch(config_, {20, 9, 31}, 77);
    AddGradients(whole, batch);
    AddGradients(*policy, batch);
    policy->lora()->TakeGradients(policy->parameters(), policy->pool());
    for (std::size_t i = 0; i < trained.tensors->size(); i += 2) {
      const auto &a = (*trained.tensors)[i], &b = (*trained.tensors)[i + 1];
      const std::string weight = a.name.substr(0, a.name.find(".lora_A")) + ".weight";
      const auto leaf = [&](const TrainedBuffers::Tensor& t) {
        return torch::tensor(std::vector<float>(values.begin() + t.offset,
                                                values.begin() + t.offset + t.count()))
            .view(t.shape)
            .set_requires_grad(true);
      };
      const torch::Tensor fa = leaf(a), fb = leaf(b);
      const Parameters::Entry& entry = whole.parameters().Find(weight);
      const torch::Tensor dw = torch::from_blob(whole.parameters().gradients() + entry.offset,
                                                entry.spec.shape, torch::kFloat32);
      ((torch::mm(fb, fa) * 2.0) * dw).sum().backward();
      for (const auto& [factor, tensor] : {std::pair(&a, &fa), std::pair(&b, &fb)}) {
        const torch::Tensor own =
            torch::from_blob(trained.gradients + factor->offset, factor->shape, torch::kFloat32);
        const double scale = tensor->grad().abs().max().item<double>();
        EXPECT_LE((own - tensor->grad()).abs().max().item<double>(), 1e-5 * scale + 1e-12)
            << factor->name;
      }
    }
  }
}

TEST_F(LoraTest, LowersTheLoss) {
  const auto policy = Adapted();
  const TinyBatch batch = RandomBatch(config_, {20, 9, 31}, 3);
  configs::Optimizer optimizer;
  optimizer.learning_rate = 2e-2;
  std::vector<double> losses;
  for (int step = 1; step <= 20; ++step) {
    losses.push_back(AddGradients(*policy, batch));
    Update(*policy, optimizer, step, {}, losses.back());
  }
  EXPECT_LT(losses.back(), losses.front() - 0.1);
}

TEST_F(LoraTest, ARestoredCheckpointGoesOnBitForBitInEveryMode) {
  for (const engine::Numerics& numerics : AllNumerics()) {
    SCOPED_TRACE(numerics.id());
    const auto policy = Adapted(numerics);
    Train(*policy, 1, 2);
    TrainState state;
    state.step = 2;
    state.config = Json::object();
    CheckpointSaver saver(dir_.path(), 0);
    saver.Save(state, std::make_shared<const Snapshot>(*policy, Base()));
    Train(*policy, 3, 4);  // while it is written
    saver.Take(/*wait=*/true);
    const auto restored = Adapted(numerics);
    Restore(FindCheckpoint(dir_.path()).dir, Base(), *restored);
    Train(*restored, 3, 4);
    EXPECT_TRUE(torch::equal(LogProbs(*restored), LogProbs(*policy)));
    EXPECT_TRUE(std::equal(policy->trained().values,
                           policy->trained().values + policy->trained().size,
                           restored->trained().values));
  }
}

TEST_F(LoraTest, AnAdapterFolderMergedByConvertIsWhatTrainingRan) {
  const auto policy = Adapted();
  Train(*policy, 1, 3);
  const std::string checkpoint = dir_.path() + "/checkpoint";
  fs::create_directories(checkpoint);
  Snapshot(*policy, Base()).Write(checkpoint);
  const std::string merged = dir_.path() + "/merged";
  engine::ConvertModel(Base(), {}, merged, engine::kShardBytes, {}, checkpoint + "/adapter");
  Policy from_merged(config_, {});
  from_merged.Load(merged);
  EXPECT_TRUE(torch::equal(LogProbs(from_merged), LogProbs(*policy)));
  EXPECT_TRUE(std::equal(policy->parameters().values(),
                         policy->parameters().values() + policy->parameters().size(),
                         from_merged.parameters().values()));
  // And a run that begins with it starts there.
  Policy::Options options = options_;
  options.lora.adapter = checkpoint + "/adapter";
  Policy again(config_, options);
  again.Load(Base());
  again.BeginAdapters(99);
  EXPECT_TRUE(torch::equal(LogProbs(again), LogProbs(*policy)));
}

TEST_F(LoraTest, AFolderWithFewerMatricesLeavesNoneOfTheOthersDead) {
  const std::vector<std::string> all = std::exchange(options_.lora.target_modules, {"o_proj"});
  const auto narrow = Adapted();
  Train(*narrow, 1, 2);
  const std::string out = dir_.path() + "/narrow";
  fs::create_directories(out);
  narrow->lora()->Write(out, Base(), narrow->trained().values);
  options_.lora.target_modules = all;
  options_.lora.adapter = out;
  const auto policy = Adapted();
  EXPECT_TRUE(torch::equal(LogProbs(*policy), LogProbs(*narrow)));
  const std::vector<float> before(policy->parameters().values(),
                                  policy->parameters().values() + policy->parameters().size());
  Train(*policy, 3, 4);
  for (const std::size_t entry : policy->lora()->entries()) {
    const Parameters::Entry& e = policy->parameters().entries()[entry];
    const float* const now = policy->parameters().values() + e.offset;
    EXPECT_FALSE(std::equal(now, now + e.spec.count(), before.begin() + e.offset)) << e.spec.name;
  }
}

TEST_F(LoraTest, RefusesWhatItCannotHonour) {
  options_.lora.target_modules = {"qkv_proj"};
  EXPECT_THROW(Policy(config_, options_), UserError);
  options_.lora.target_modules = {"o_proj"};
  const auto policy = Adapted();
  const std::string out = dir_.path() + "/out";
  fs::create_directories(out);
  policy->lora()->Write(out, Base(), policy->trained().values);
  const auto with = [&](const std::string& key, const Json& value) {
    Json json = configs::ReadJsonFile(out + "/adapter_config.json");
    json[key] = value;
    const std::string dir = dir_.path() + "/edited";
    fs::create_directories(dir);
    fs::copy(out + "/adapter_model.safetensors", dir + "/adapter_model.safetensors",
             fs::copy_options::overwrite_existing);
    std::ofstream(dir + "/adapter_config.json") << json.dump();
    return ErrorOf<UserError>([&] {
      const engine::AdapterConfig config = engine::ReadAdapterConfig(dir);
      engine::ReadAdapter(dir, config, engine::RequiredTensors(config_));
    });
  };
  EXPECT_NE(with("use_dora", true).find("use_dora"), std::string::npos);
  EXPECT_NE(with("peft_type", "IA3").find("peft_type"), std::string::npos);
  EXPECT_NE(with("modules_to_save", {"lm_head"}).find("modules_to_save"), std::string::npos);
  EXPECT_NE(with("rank_pattern", {{"o_proj", 4}}).find("rank_pattern"), std::string::npos);
  EXPECT_NE(with("r", 5).find("must be [5, "), std::string::npos);
  EXPECT_NE(with("r", "x").find("r"), std::string::npos);
  EXPECT_NE(with("lora_alpha", -1).find("lora_alpha"), std::string::npos);
  EXPECT_EQ(with("lora_dropout", 0.1), "");
}

}  // namespace
}  // namespace temper::learner
