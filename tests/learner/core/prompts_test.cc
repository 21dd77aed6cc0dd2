#include "learner/core/prompts.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/engine/temp_dir.h"
#include "tests/engine/tiny_model.h"
#include "tests/reward/zygote_entry.h"

namespace temper::learner {
namespace {

class PromptsTest : public testing::Test {
 protected:
  PromptsTest()
      : tokenizer_(TEMPER_SOURCE_DIR "/configs/tokenizers/bytes"), model_(engine::TinyConfig()) {
    model_.vocab_size = 264;
    config_.data.train = dir_.Write("p.jsonl",
                                    "{\"prompt\": \"1+1=\", \"answer\": 2}\n"
                                    "{\"prompt\": \"2+2=\", \"answer\": \"4\"}\n"
                                    "\n"
                                    "{\"prompt\": \"hi\"}\n");
    config_.seed = 9;
  }
  DatasetPrompts Make() const { return DatasetPrompts(config_, tokenizer_, model_); }

  TempDir dir_;
  engine::Tokenizer tokenizer_;
  engine::ModelConfig model_;
  configs::Config config_;
};

TEST_F(PromptsTest, AGroupIsAlwaysTheSameRowAndEpochsCoverAllRows) {
  const DatasetPrompts prompts = Make();
  for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
    std::set<std::string> seen;
    for (std::uint64_t g = 3 * epoch; g < 3 * epoch + 3; ++g)
      seen.insert(prompts.Prompt(g).row_json);
    EXPECT_EQ(seen.size(), 3u);
  }
  EXPECT_EQ(prompts.Prompt(1).prompt_ids, Make().Prompt(1).prompt_ids);  // asked out of order
}

TEST_F(PromptsTest, GivesPromptRowIdsAndAnswer) {
  config_.data.shuffle = false;
  const DatasetPrompts prompts = Make();
  EXPECT_EQ(prompts.Prompt(3).prompt_json, "\"1+1=\"");
  EXPECT_EQ(prompts.Prompt(4).prompt_ids, tokenizer_.EncodePrompt("2+2="));
  bool has = false;
  EXPECT_EQ(prompts.Answer(0, &has), "2");
  EXPECT_TRUE(has);
  prompts.Answer(2, &has);
  EXPECT_FALSE(has);
}

TEST_F(PromptsTest, NamesTheLineOfAPromptThatIsTooLongOrLeavesNoRoom) {
  config_.data.max_prompt_length = 4;
  EXPECT_NE(Refusal([&] { Make(); }).find("p.jsonl:1: a prompt of 5 tokens"), std::string::npos);
  config_.data.max_prompt_length = 512;
  config_.grpo.max_completion_length = model_.max_positions - 4;
  EXPECT_NE(Refusal([&] { Make(); }).find("don't fit"), std::string::npos);
}

TEST_F(PromptsTest, ATaskGivesAGroupTheSameRowWhateverWasAskedBefore) {
  config_.data.train = "";
  config_.data.task = TEMPER_SOURCE_DIR "/reward/library/arithmetic.lua";
  config_.data.heldout = 50;
  const auto make = [&](std::uint64_t seed) {
    config_.seed = seed;
    return MakePrompts(config_, tokenizer_, model_, {"/proc/self/exe", "reward-zygote"});
  };
  const auto prompts = make(9), again = make(9), other = make(10);
  EXPECT_EQ(prompts->rows(), 0u);
  std::vector<store::GroupRow> rows;
  for (std::uint64_t g = 0; g < 250; ++g) rows.push_back(prompts->Prompt(g));
  EXPECT_EQ(again->Prompt(249).row_json, rows[249].row_json);
  EXPECT_EQ(again->Prompt(3).row_json, rows[3].row_json);  // asked for anew, as a resume does
  EXPECT_NE(other->Prompt(3).row_json, rows[3].row_json);
  bool has = false;
  const std::string answer = prompts->Answer(249, &has);
  EXPECT_TRUE(has);
  EXPECT_NE(rows[249].row_json.find(answer), std::string::npos);
  EXPECT_EQ(rows[7].prompt_ids,
            tokenizer_.EncodePrompt(Json::parse(rows[7].prompt_json).get<std::string>()));

  reward::TaskOptions options;
  options.seed = 9;
  std::set<std::string> held;
  for (const std::string& row : reward::HeldoutRows(config_.data.task, options, 50))
    held.insert(Json::parse(row).at("prompt").dump());
  for (const store::GroupRow& row : rows) EXPECT_EQ(held.count(row.prompt_json), 0u);
}

TEST_F(PromptsTest, ATaskThatMakesNoRowsIsRefusedBeforeTheRun) {
  config_.data.train = "";
  const auto why = [&](const std::string& script) {
    config_.data.task = dir_.Write("t.lua", script);
    return Refusal([&] {
      MakePrompts(config_, tokenizer_, model_, {"/proc/self/exe", "reward-zygote"});
    });
  };
  const std::string score = "function score(s) return 1 end\n";
  EXPECT_NE(why(score).find("t.lua"), std::string::npos);
  EXPECT_NE(why(score + "function prompts(rng, n) error('no') end").find("t.lua:2: "),
            std::string::npos);
  EXPECT_NE(why(score + "function prompts(rng, n) local r = {} for i = 1, n do r[i] = "
                        "{prompt = 'same'} end return r end")
                .find("only 1 different prompts"),
            std::string::npos);
  config_.data.max_prompt_length = 3;
  EXPECT_NE(why(score + "function prompts(rng, n) local r = {} for i = 1, n do r[i] = {prompt = "
                        "'p' .. rng:int(1, 1 << 40)} end return r end")
                .find("t.lua: row 0: a prompt of"),
            std::string::npos);
}

}  // namespace
}  // namespace temper::learner
