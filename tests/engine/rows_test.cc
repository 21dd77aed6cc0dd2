#include "engine/data/rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "tests/engine/temp_dir.h"

namespace temper::engine {
namespace {

std::vector<Row> Read(const std::string& text, RowUse use = RowUse::kPrompt,
                      const std::string& prompt = "", const std::string& answer = "") {
  const TempDir dir;
  return ReadRows(dir.Write("d.jsonl", text), use, prompt, answer);
}

std::string Refused(const std::string& text, RowUse use = RowUse::kPrompt,
                    const std::string& prompt = "", const std::string& answer = "") {
  const std::string what = Refusal([&] { Read(text, use, prompt, answer); });
  const std::size_t at = what.find("d.jsonl");
  return at == what.npos ? what : what.substr(at);
}

TEST(Rows, ReadsTheFieldsFormats) {
  const auto rows = Read(
      R"({"prompt": "p1", "solution": "s"})"
      "\r\n\n  \t\n"
      R"({"question": "q2", "answer": "a", "label": "other"})"
      "\n"
      R"({"prompt": "p3", "reward_model": {"style": "rule", "ground_truth": "#### 4"}, "extra_info": {"index": 1}})"
      "\n"
      R"({"prompt": "p4", "label": 7, "metadata": {"answer": "no"}})"
      "\n"
      R"({"prompt": "p5", "metadata": {"answer": true}})"
      "\n"
      R"({"ids": [0, 5, 2147483647]})"
      "\n"
      R"({"prompt": "p7", "answer": null, "ground_truth": ["x", "y"]})");
  ASSERT_EQ(rows.size(), 7u);
  EXPECT_EQ(rows[0].prompt, "p1");
  EXPECT_EQ(rows[0].answer, "s");
  EXPECT_EQ(rows[0].line, 1);
  EXPECT_EQ(rows[1].prompt, "q2");
  EXPECT_EQ(rows[1].answer, "a");
  EXPECT_EQ(rows[1].line, 4);
  EXPECT_EQ(rows[2].answer, "#### 4");
  EXPECT_EQ(rows[2].json.at("extra_info").at("index"), 1);
  EXPECT_EQ(rows[3].answer, "7");
  EXPECT_EQ(rows[4].answer, "true");
  EXPECT_TRUE(rows[4].has_answer);
  EXPECT_EQ(rows[5].ids, (std::vector<std::int32_t>{0, 5, 2147483647}));
  EXPECT_FALSE(rows[5].has_answer);
  EXPECT_EQ(rows[6].answer, "[\"x\",\"y\"]");
}

TEST(Rows, ReadsCompletionsAndPlainText) {
  const auto rows =
      Read("{\"prompt\": \"p\", \"completion\": \"c\"}\n{\"text\": \"t\"}\n", RowUse::kCompletion);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].prompt, "p");
  EXPECT_EQ(rows[0].completion, "c");
  EXPECT_EQ(rows[1].prompt, "");
  EXPECT_EQ(rows[1].completion, "t");
}

TEST(Rows, NamedColumnsWin) {
  const auto rows = Read("{\"prompt\": \"p\", \"q\": \"mine\", \"answer\": \"a\", \"gold\": 1.5}",
                         RowUse::kPrompt, "q", "gold");
  EXPECT_EQ(rows[0].prompt, "mine");
  EXPECT_EQ(rows[0].answer, "1.5");
  EXPECT_EQ(Refused("{\"prompt\": \"p\"}", RowUse::kPrompt, "q"),
            "d.jsonl:1: no column \"q\": the row has \"prompt\"");
  EXPECT_EQ(Refused("{\"prompt\": \"p\"}", RowUse::kPrompt, "", "gold"),
            "d.jsonl:1: no column \"gold\": the row has \"prompt\"");
}

TEST(Rows, ABrokenLineIsNamed) {
  const std::string good = "{\"prompt\": \"p\"}\n";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "d.jsonl: has no rows"},
      {"\n \r\n", "d.jsonl: has no rows"},
      {good + "{\"prompt\": ",
       "d.jsonl:2:1:12: syntax error while parsing value - unexpected end of input; expected '[', "
       "'{', or a literal"},
      {good + good + "nope", "d.jsonl:3:1:2: syntax error while parsing value - invalid literal"},
      {good + "[1]", "d.jsonl:2: a row must be a JSON object, not [1]"},
      {good + "{}",
       "d.jsonl:2: no \"prompt\", \"question\", \"messages\" or \"ids\": the row has no columns"},
      {good + "{\"text\": \"t\", \"n\": 1}",
       "d.jsonl:2: no \"prompt\", \"question\", \"messages\" or \"ids\": the row has \"text\", "
       "\"n\""},
      {"{\"prompt\": 3}", "d.jsonl:1: \"prompt\": 3 must be a string"},
      {"{\"ids\": []}", "d.jsonl:1: \"ids\" must be a list of token ids, not empty"},
      {"{\"ids\": [1, -1]}", "d.jsonl:1: \"ids\": -1 must be an integer in [0, 2147483647]"},
      {"{\"ids\": [1.0]}", "d.jsonl:1: \"ids\": 1.0 must be an integer in [0, 2147483647]"},
      {"\xEF\xBB\xBF" + good,
       "d.jsonl:1:1:1: starts with a byte-order mark: JSON has none; save it as plain UTF-8"},
      {"{\"prompt\": \"a\", \"prompt\": \"b\"}", "d.jsonl:1:1:24: duplicate key \"prompt\""},
      {std::string("{\"prompt\": \"a\0b\"}", 17), "d.jsonl:1:1:14: a NUL byte"},
      {"{\"prompt\": \"\\ud800\"}",
       "d.jsonl:1:1:19: syntax error while parsing value - invalid string: surrogate "
       "U+D800..U+DBFF must be followed by U+DC00..U+DFFF"},
      {"{\"prompt\": \"\x80\"}",
       "d.jsonl:1:1:13: syntax error while parsing value - invalid string: ill-formed UTF-8 byte"},
      {good + good.substr(0, good.size() - 1) + " " + good,
       "d.jsonl:2:1:17: syntax error while parsing value - unexpected '{'; expected end of input"},
  };
  for (const auto& [text, want] : cases) EXPECT_EQ(Refused(text), want) << text;
  EXPECT_EQ(Refused("{\"prompt\": \"p\"}", RowUse::kCompletion),
            "d.jsonl:1: no \"prompt\" and \"completion\", \"text\" or \"messages\": the row has "
            "\"prompt\"");
  EXPECT_EQ(Refused("{\"text\": 1}", RowUse::kCompletion),
            "d.jsonl:1: \"text\": 1 must be a string");
}

// One row of each of the field's formats, as their documentation shows them.
TEST(Rows, PromptsOfEveryTrainerAreRead) {
  const std::string user = R"([{"role": "user", "content": "2+2?"}])";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"prompt": USER, "solution": "4"})", "4"},
      {R"({"prompt": USER, "ground_truth": 4, "tools": [{"type": "function"}]})", "4"},
      {R"({"data_source": "gsm8k", "prompt": USER, "ability": "math", "reward_model": {"style": "rule", "ground_truth": "4"}, "extra_info": {"split": "train", "index": 0}})",
       "4"},
      {R"({"prompt": USER, "label": "4", "metadata": {"session": 1}})", "4"},
      {R"({"messages": USER, "ground_truth": ["4"], "dataset": ["gsm8k"]})", "[\"4\"]"},
      {R"({"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}], "ground_truth": "4", "dataset": "gsm8k"})",
       "4"},
      {R"({"prompt": USER, "answer": "4", "info": {"a": 1}, "task": "default"})", "4"},
      {R"({"prompt": USER, "chosen": USER, "rejected": USER})", ""},
  };
  for (auto [text, answer] : cases) {
    for (std::size_t at; (at = text.find("USER")) != text.npos;) text.replace(at, 4, user);
    const auto rows = Read(text);
    EXPECT_EQ(rows[0].messages, Json::parse(user)) << text;
    EXPECT_EQ(rows[0].answer, answer) << text;
    EXPECT_EQ(rows[0].prompt, "") << text;
    EXPECT_EQ(rows[0].json, Json::parse(text)) << "all columns stay";
  }
  EXPECT_EQ(Read(R"({"question": "2+2?", "answer": "4", "info": {}, "task": "t"})")[0].prompt,
            "2+2?");
  EXPECT_EQ(
      Read(R"({"text_in": [{"role": "user", "content": "x"}]})", RowUse::kPrompt, "text_in")[0]
          .messages.size(),
      1u);
  const auto tools =
      Read("{\"prompt\": " + user +
           R"(, "tools": "[{\"a\": 1}]", "chat_template_kwargs": {"thinking": true}})");
  EXPECT_EQ(tools[0].tools, Json::parse(R"([{"a": 1}])"));
  EXPECT_EQ(tools[0].template_variables, Json::parse(R"({"thinking": true})"));
}

TEST(Rows, ConversationsAreReadForTraining) {
  const auto whole = Read(
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})",
      RowUse::kCompletion);
  EXPECT_EQ(whole[0].messages.size(), 2u);
  EXPECT_TRUE(whole[0].completion_messages.is_null());
  const auto split = Read(
      R"({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]})",
      RowUse::kCompletion);
  EXPECT_EQ(split[0].messages.size(), 1u);
  EXPECT_EQ(split[0].completion_messages[0].at("content"), "b");
}

TEST(Rows, BrokenMessagesAreNamed) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"prompt": []})", "d.jsonl:1: \"prompt\" must be a list of messages, not empty"},
      {R"({"prompt": [1, 2]})", "d.jsonl:1: \"prompt\"[0]: 1 must be a message with a \"role\""},
      {R"({"messages": [{"content": "x"}]})",
       "d.jsonl:1: \"messages\"[0]: {\"content\":\"x\"} must be a message with a \"role\""},
      {R"({"prompt": [{"role": "user"}], "tools": "nope"})",
       "d.jsonl:1: \"tools\":1:2: syntax error while parsing value - invalid literal"},
      {R"({"prompt": [{"role": "user"}], "tools": {}})", "d.jsonl:1: \"tools\": {} must be a list"},
      {R"({"prompt": [{"role": "user"}], "chat_template_kwargs": 1})",
       "d.jsonl:1: \"chat_template_kwargs\": 1 must be an object"},
  };
  for (const auto& [text, want] : cases) EXPECT_EQ(Refused(text), want) << text;
  EXPECT_EQ(Refused(R"({"prompt": [{"role": "user"}], "completion": "x"})", RowUse::kCompletion),
            "d.jsonl:1: \"prompt\" and \"completion\" must both be texts or both be messages");
}

TEST(Rows, LinesAcrossChunksAreWholeAndTooLongOnesRefused) {
  std::string text;
  std::vector<std::string> prompts;
  for (int i = 0; i < 40; ++i) {
    prompts.push_back(
        std::string(static_cast<std::size_t>(i) * 7919, static_cast<char>('a' + i % 26)));
    text += "{\"prompt\": \"" + prompts.back() + "\"}\n";
  }
  const auto rows = Read(text);
  ASSERT_EQ(rows.size(), prompts.size());
  for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].prompt, prompts[i]);
  EXPECT_EQ(Refused("{\"prompt\": \"p\"}\n" + std::string((std::size_t{64} << 20) + 1, ' ')),
            "d.jsonl:2: longer than 64 MiB");
}

TEST(Shuffled, IsAPermutationThatSeedAndEpochDetermine) {
  for (const std::int64_t n : {0, 1, 2, 1000}) {
    auto order = Shuffled(n, 7, 0);
    EXPECT_EQ(order, Shuffled(n, 7, 0));
    if (n == 1000) {
      EXPECT_NE(order, Shuffled(n, 7, 1));
      EXPECT_NE(order, Shuffled(n, 8, 0));
      EXPECT_NE(order, Shuffled(n, 7 + (std::uint64_t{1} << 32), 0));
    }
    std::sort(order.begin(), order.end());
    std::vector<std::int64_t> identity(static_cast<std::size_t>(n));
    std::iota(identity.begin(), identity.end(), 0);
    EXPECT_EQ(order, identity);
  }
  // From an independent implementation: the order may never change.
  EXPECT_EQ(Shuffled(10, 7, 3), (std::vector<std::int64_t>{7, 4, 1, 0, 8, 2, 3, 6, 5, 9}));
}

TEST(Shuffled, EveryOrderIsEquallyLikely) {
  std::map<std::vector<std::int64_t>, int> seen;
  const int draws = 24'000;
  for (int epoch = 0; epoch < draws; ++epoch)
    ++seen[Shuffled(4, 1, static_cast<std::uint64_t>(epoch))];
  EXPECT_EQ(seen.size(), 24u);
  double chi2 = 0;
  for (const auto& [order, count] : seen) chi2 += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi2, 60);  // 23 degrees of freedom: p = 4e-5
}

}  // namespace
}  // namespace temper::engine
