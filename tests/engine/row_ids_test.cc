#include "engine/data/row_ids.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/engine/temp_dir.h"

namespace temper::engine {
namespace {

// The small tokenizer of the goldens with a chat template of ours.
class RowIds : public testing::Test {
 protected:
  RowIds() {
    const std::string from = TEMPER_SOURCE_DIR "/tests/engine/goldens/tokenizer/";
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
      std::filesystem::copy(from + name, dir_ / name);
    }
    dir_.Write("chat_template.jinja",
               "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[u]{{ m.content }}"
               "{% else %}[a]{{ m.content.split('|')[-1] }}{{ eos_token }}{% endif %}{% endfor %}"
               "{% if add_generation_prompt %}[a]think{% endif %}{% if tools %}T{% endif %}"
               "{% if extra is defined %}{{ extra }}{% endif %}");
    tokenizer_.emplace(dir_.path());
  }
  Row Read(const std::string& line, RowUse use) const {
    return ReadRows(dir_.Write("d.jsonl", line), use, "", "")[0];
  }
  std::string Prompt(const std::string& line) const {
    return tokenizer_->Decode(PromptIds(Read(line, RowUse::kPrompt), *tokenizer_), false);
  }
  /// The prompt's text, a bar, the completion's text.
  std::string Training(const std::string& line) const {
    const TrainingIds out = CompletionIds(Read(line, RowUse::kCompletion), *tokenizer_);
    return tokenizer_->Decode({out.ids.begin(), out.ids.begin() + out.prompt}, false) + " || " +
           tokenizer_->Decode({out.ids.begin() + out.prompt, out.ids.end()}, false);
  }

  const TempDir dir_;
  std::optional<Tokenizer> tokenizer_;
  const std::string bos_ = "<｜begin▁of▁sentence｜>", eos_ = "<｜end▁of▁sentence｜>";
};

TEST_F(RowIds, APromptIsRenderedUpToTheAnswersBeginning) {
  EXPECT_EQ(Prompt(R"({"prompt": "plain"})"), bos_ + "plain");
  EXPECT_EQ(Prompt(R"({"prompt": [{"role": "user", "content": "hi"}]})"), bos_ + "[u]hi[a]think");
  EXPECT_EQ(
      Prompt(
          R"({"prompt": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "so"}]})"),
      bos_ + "[u]hi[a]so");
  EXPECT_EQ(
      Prompt(
          R"({"prompt": [{"role": "user", "content": "hi"}], "tools": [{}], "chat_template_kwargs": {"extra": "e"}})"),
      bos_ + "[u]hi[a]thinkTe");
  EXPECT_EQ(PromptIds(Read(R"({"ids": [3, 1, 2]})", RowUse::kPrompt), *tokenizer_),
            (std::vector<std::int32_t>{3, 1, 2}));
}

TEST_F(RowIds, TheRewardSeesThePromptAsTheRowHasIt) {
  EXPECT_EQ(PromptJson(Read(R"({"prompt": "p"})", RowUse::kPrompt)), Json("p"));
  EXPECT_EQ(PromptJson(Read(R"({"ids": [7]})", RowUse::kPrompt)), Json::parse("[7]"));
  const char* messages = R"([{"role": "user", "content": "hi"}])";
  EXPECT_EQ(PromptJson(Read(std::string("{\"prompt\": ") + messages + "}", RowUse::kPrompt)),
            Json::parse(messages));
}

TEST_F(RowIds, TrainingRowsSayWhereTheCompletionBegins) {
  EXPECT_EQ(Training(R"({"prompt": "p", "completion": "c"})"), bos_ + "p || c" + eos_);
  EXPECT_EQ(Training(R"({"text": "t"})"), bos_ + " || t" + eos_);
  // A whole conversation is trained whole, and ends as the template ends it.
  EXPECT_EQ(
      Training(
          R"({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]})"),
      " || " + bos_ + "[u]hi[a]yo" + eos_);
  // The prompt for an answer ends in "think", which the whole does not have: what both have counts.
  EXPECT_EQ(
      Training(
          R"({"prompt": [{"role": "user", "content": "hi"}], "completion": [{"role": "assistant", "content": "secret|yo"}]})"),
      bos_ + "[u]hi[a] || yo" + eos_);
}

TEST_F(RowIds, WhatCannotBeRenderedNamesItsLine) {
  const auto refused = [&](const std::string& line) {
    const std::string what = Refusal([&] { Prompt(line); });
    return what.substr(what.find("d.jsonl"));
  };
  EXPECT_EQ(refused(R"({"prompt": [{"role": "system", "content": "x"}]})"),
            "d.jsonl:1: the last message's role is \"system\": a prompt ends with a turn of "
            "\"user\", \"tool\" or \"assistant\"");
  EXPECT_EQ(refused(R"({"prompt": [{"role": "assistant", "content": null}]})"),
            "d.jsonl:1: the last message has no content to continue");
  EXPECT_EQ(
      refused(R"({"prompt": [{"role": "assistant", "content": "a|b"}]})"),
      "d.jsonl:1: the chat template does not render the end of the last message: it cannot be "
      "continued");
  std::filesystem::remove(dir_ / "chat_template.jinja");
  tokenizer_.emplace(dir_.path());
  EXPECT_EQ(refused(R"({"prompt": [{"role": "user", "content": "x"}]})"),
            "d.jsonl:1: " + dir_.path() +
                ": messages need a chat template: neither chat_template.jinja nor "
                "\"chat_template\" in tokenizer_config.json is there");
}

}  // namespace
}  // namespace temper::engine
