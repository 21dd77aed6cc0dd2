#include "learner/prompts.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/engine/temp_dir.h"
#include "tests/engine/tiny_model.h"

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

}  // namespace
}  // namespace temper::learner
