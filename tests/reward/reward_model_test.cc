// Reward models against transformers, and what they refuse.
#include "reward/reward_model.h"

#include "configs/json.h"
#include "engine/checkpoint.h"
#include "tests/engine/temp_dir.h"
#include "tests/reward/fixtures.h"

namespace temper::reward {
namespace {

const std::string kData = std::string(TEMPER_SOURCE_DIR) + "/tests/reward/data/";
const std::string kTokenizer = std::string(TEMPER_SOURCE_DIR) + "/configs/tokenizers/bytes";

class RewardModelTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempDir;
    engine::InitModel(kData + "reward_arch.json", kTokenizer, 5, engine::Dtype::kF32, Dir());
  }
  static void TearDownTestSuite() { delete folder_; }
  static std::string Dir() { return *folder_ / "model"; }

  static inline TempDir* folder_ = nullptr;
};

SampleInput Ask(const std::string& prompt_json, const std::string& completion) {
  SampleInput sample = Sample(completion);
  sample.prompt_json = prompt_json;
  return sample;
}

/// reward_model.py wrote the scores; FP32 sums in another order differ by less than this.
constexpr double kTolerance = 2e-5;

TEST_F(RewardModelTest, ScoresAsTransformersDoes) {
  RewardModel model(Dir(), "fp32", 2);
  const Json golden = configs::ReadJsonFile(kData + "reward_model.json");
  int compared = 0;
  for (const Json& group : golden.at("groups")) {
    std::vector<SampleInput> samples;
    for (const Json& completion : group.at("completions")) {
      samples.push_back(Ask(group.at("prompt").dump(), completion.get<std::string>()));
    }
    const std::vector<Outcome> outcomes = model.Score(samples);
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      ASSERT_EQ(outcomes[i].status, Status::kOk) << outcomes[i].message;
      EXPECT_NEAR(*outcomes[i].score, group.at("scores")[i].get<double>(), kTolerance)
          << samples[i].prompt_json << samples[i].completion;
      ++compared;
    }
    // The company changes no bit; token ids as a prompt are the same text.
    const auto ids = group.at("ids").get<std::vector<std::vector<std::int32_t>>>();
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      EXPECT_EQ(*outcomes[i].score, model.ScoreIds({ids[i]})[0]);
      SampleInput of_ids = Ask(Json(ids[i]).dump(), "");
      of_ids.completion_ids.clear();
      EXPECT_EQ(model.Score({&of_ids, 1})[0].score, outcomes[i].score);
    }
  }
  EXPECT_EQ(compared, 10);
}

TEST_F(RewardModelTest, ReadsAConversationByTheChatTemplate) {
  const TempDir other;
  std::filesystem::copy(Dir(), other / "m");
  std::ofstream(other / "m/chat_template.jinja")
      << "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";
  RewardModel model(other / "m", "fp32", 1);
  const SampleInput chat = Ask(R"([{"role":"user","content":"hi"}])", "ho");
  SampleInput text = Ask("\"[user]hi[assistant]\"", "ho");
  const Outcome of_chat = model.Score({&chat, 1})[0];
  ASSERT_EQ(of_chat.status, Status::kOk) << of_chat.message;
  // The tokenizer puts BOS before the text; the template writes none.
  EXPECT_NE(of_chat.score, model.Score({&text, 1})[0].score);
  RewardModel without(Dir(), "fp32", 1);
  EXPECT_EQ(without.Score({&chat, 1})[0].status, Status::kScriptError);
}

TEST_F(RewardModelTest, ASampleThatCannotBeScoredIsAStatusAndTheOthersStand) {
  RewardModel model(Dir(), "fp32", 1);
  const std::vector<SampleInput> samples = {Ask("\"2+2=\"", "4"),
                                            Ask("\"2+2=\"", std::string(300, 'x')),
                                            Ask("[500]", ""), Ask("\"2+2=\"", "\xff\xfe")};
  const std::vector<Outcome> outcomes = model.Score(samples);
  EXPECT_EQ(outcomes[0].status, Status::kOk);
  EXPECT_EQ(outcomes[1].status, Status::kScriptError);
  EXPECT_NE(outcomes[1].message.find("256 positions"), std::string::npos) << outcomes[1].message;
  EXPECT_EQ(outcomes[2].status, Status::kScriptError);
  EXPECT_NE(outcomes[2].message.find("past the vocabulary"), std::string::npos);
  EXPECT_EQ(outcomes[3].status, Status::kOk);  // invalid UTF-8 becomes U+FFFD
  EXPECT_EQ(outcomes[0].score, model.Score({&samples[0], 1})[0].score);
}

TEST_F(RewardModelTest, IsOneOfARunsRewards) {
  configs::RewardFunction entry;
  entry.model = Dir();
  entry.weight = 2;
  RewardHost host(With({MakeFunction(entry, ""), Script("function score(s) return 1 end")}));
  host.Check();
  const std::vector<SampleInput> samples = {Ask("\"17+25=\"", "42"), Ask("\"17+25=\"", "41")};
  const auto results = host.ScoreGroup(samples);
  EXPECT_EQ(results[0].parts[0].name, "model");
  EXPECT_EQ(*results[0].score, 2 * *results[0].parts[0].value + 1);
}

TEST_F(RewardModelTest, AModelWithoutAScalarHeadIsRefused) {
  const TempDir other;
  engine::InitModel(std::string(TEMPER_SOURCE_DIR) + "/configs/arch/quickstart.json", kTokenizer, 1,
                    engine::Dtype::kF32, other / "lm");
  configs::RewardFunction entry;
  entry.model = other / "lm";
  EXPECT_NE(Refusal([&] {
              MakeFunction(entry, "");
            }).find("a reward model must be a DeepseekV3ForSequenceClassification"),
            std::string::npos);
  EXPECT_NE(
      Refusal([&] { engine::ReadModelConfig(Dir()); }).find("scores texts and generates none"),
      std::string::npos);
}

}  // namespace
}  // namespace temper::reward
