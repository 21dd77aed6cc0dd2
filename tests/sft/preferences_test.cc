#include <fstream>

#include "configs/error.h"
#include "learner/policy.h"
#include "reward/reward_model.h"
#include "sft/objective.h"
#include "tests/sft/fixture.h"

namespace temper::sft {
namespace {

/// Pairs in which the chosen answer is right and the rejected one is not.
class PreferencesTest : public SftTest {
 protected:
  PreferencesTest() {
    std::string rows;
    for (int i = 0; i < 24; ++i) {
      rows += Json{{"prompt", std::to_string(i) + "+1="},
                   {"chosen", std::to_string(i + 1)},
                   {"rejected", std::to_string(i + 1) + std::string(1 + i % 3, '?')}}
                  .dump() +
              "\n";
    }
    Write("pairs.jsonl", rows);
  }
  configs::Config Pairs(const std::string& run, std::vector<std::string> sets = {}) const {
    sets.insert(sets.begin(), {"sft.loss_type=pairwise", "data.train=" + Path("pairs.jsonl")});
    return Config(run, sets);
  }
  std::string ErrorOf(const configs::Config& config) {
    try {
      RunSft(config, alone_);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  }
};

TEST_F(PreferencesTest, TrainsARewardModelThatPrefersTheChosen) {
  const std::vector<Json> lines =
      Run(Pairs("run", {"sft.max_steps=40", "sft.learning_rate=0.01",
                        "data.eval=" + Path("pairs.jsonl"), "sft.eval_steps=40"}));
  EXPECT_NEAR(lines.front()["loss"].get<double>(), std::log(2.0), 0.1);
  EXPECT_LT(lines.back()["loss"].get<double>(), 0.1);
  EXPECT_EQ(lines.back()["accuracy"], 1.0);
  EXPECT_EQ(lines.back()["eval_accuracy"], 1.0);
  EXPECT_GT(lines.back()["margin"].get<double>(), 2.0);

  reward::RewardModel judge(Path("run/checkpoints/latest"), "fp32", 1);
  const auto score = [&](const std::string& completion) {
    reward::SampleInput sample;
    sample.prompt_json = "\"7+1=\"";
    sample.completion = completion;
    const reward::Outcome outcome = judge.Score({&sample, 1})[0];
    EXPECT_TRUE(outcome.score.has_value());
    return outcome.score.value_or(0);
  };
  EXPECT_GT(score("8"), score("8??"));
}

TEST_F(PreferencesTest, ScoresAreTheRewardModelsBits) {
  Run(Pairs("run", {"sft.max_steps=3"}));
  const std::string folder = Path("run/checkpoints/latest");
  for (const char* dtype : {"fp32", "bf16", "fp8"}) {
    learner::Policy::Options options;
    const char* cache = dtype == std::string("fp32") ? "fp32" : "bf16";
    options.numerics = engine::ParseNumerics(dtype, cache, "pow2");
    learner::Policy policy(engine::ReadModelConfig(folder, /*scalar_head=*/true), options);
    policy.Load(folder);
    const std::vector<std::vector<std::int32_t>> ids = {{5, 6, 7, 8}, {5, 6, 9}, {5, 6}};
    auto pack = std::make_shared<learner::Pack>();
    const int trunk = pack->Add(std::vector<std::int32_t>{5, 6});
    std::vector<std::int64_t> ends;
    for (const auto& one : ids) {
      const int s = pack->AddBranch(trunk, std::span(one).subspan(2));
      ends.push_back(pack->RowAt(s, int(one.size()) - 1));
    }
    const torch::Tensor scores = policy.Score(pack, ends, /*gradients=*/false).scores;
    const std::vector<float> want = reward::RewardModel(folder, dtype, 1).ScoreIds(ids);
    for (std::size_t i = 0; i < ids.size(); ++i)
      EXPECT_EQ(scores.data_ptr<float>()[i], want[i]) << dtype;
  }
}

TEST_F(PreferencesTest, HasTheGradientOfLibTorchsPlainForm) {
  std::vector<Json> kernels = Run(Pairs("kernels", {"sft.max_steps=3"}));
  std::vector<Json> plain = Run(Pairs("plain", {"sft.max_steps=3", "learner.forward=libtorch"}));
  for (int i = 0; i < 3; ++i) {
    EXPECT_NEAR(kernels[i]["loss"].get<double>(), plain[i]["loss"].get<double>(), 1e-4);
    EXPECT_NEAR(kernels[i]["grad_norm"].get<double>(), plain[i]["grad_norm"].get<double>(), 1e-3);
  }
}

TEST_F(PreferencesTest, AnySplitIntoMicroBatchesGivesTheSameStep) {
  const std::vector<Json> whole = Run(Pairs("whole", {"sft.max_steps=2"}));
  const std::vector<Json> split =
      Run(Pairs("split", {"sft.max_steps=2", "sft.gradient_accumulation_steps=4"}));
  for (const char* key : {"loss", "grad_norm", "margin"}) {
    const double a = whole[0][key].get<double>();
    EXPECT_NEAR(a, split[0][key].get<double>(), 1e-6 * std::abs(a) + 1e-9) << key;
  }
}

TEST_F(PreferencesTest, AResumedRunHasTheBitsOfOneThatWasNotStopped) {
  Run(Pairs("whole"));
  Run(Pairs("stopped", {"sft.max_steps=3"}));
  configs::Config more = Pairs("stopped");
  more.resume = true;
  more.resume_allow = {"sft.max_steps"};
  Run(more);
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    const std::string at = std::string("/checkpoints/step-000006/") + file;
    EXPECT_EQ(Bytes(Path("whole" + at)), Bytes(Path("stopped" + at))) << file;
  }
}

TEST_F(PreferencesTest, GoesOnFromARewardModelAndRefusesItAsALanguageModel) {
  Run(Pairs("first", {"sft.max_steps=3"}));
  const std::string folder = "model=" + Path("first/checkpoints/latest");
  EXPECT_EQ(Run(Pairs("second", {folder, "sft.max_steps=2"})).size(), 2u);
  EXPECT_NE(ErrorOf(Config("third", {folder})).find("sft.loss_type"), std::string::npos);
}

TEST_F(PreferencesTest, NamesTheLineAndColumnOfABadPair) {
  const auto error = [&](const std::string& row) {
    Write("pairs.jsonl", R"({"prompt": "1", "chosen": "2", "rejected": "3"})"
                         "\n" +
                             row + "\n");
    return ErrorOf(Pairs("bad"));
  };
  EXPECT_NE(
      error(R"({"prompt": "1", "chosen": "2"})").find("pairs.jsonl:2: no column \"rejected\""),
      std::string::npos);
  EXPECT_NE(error(R"({"chosen": "2", "rejected": "2"})").find("same tokens"), std::string::npos);
  EXPECT_NE(error(R"({"prompt": "1", "chosen": 7, "rejected": "2"})").find("pairs.jsonl:2: chosen"),
            std::string::npos);
  EXPECT_NE(error(R"({"chosen": "2", "rejected": ")" + std::string(100, 'x') + "\"}")
                .find("sft.max_length is 64"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(Path("bad")));
}

}  // namespace
}  // namespace temper::sft
