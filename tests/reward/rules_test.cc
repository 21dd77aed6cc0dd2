#include "reward/rules.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace temper::reward {
namespace {

std::optional<double> Score(const char* rule, std::string_view completion,
                            std::string_view answer) {
  return RunRule(*FindRule(rule), completion, answer);
}

TEST(Rules, AreFoundByName) {
  for (const Rule& rule : Rules()) EXPECT_EQ(FindRule(rule.name), &rule);
  EXPECT_EQ(FindRule("nothing"), nullptr);
  EXPECT_EQ(FindRule(""), nullptr);
}

TEST(Rules, ExactIgnoresOnlyTheWhiteSpaceAround) {
  EXPECT_EQ(Score("exact", " a b\n", "a b"), 1.0);
  EXPECT_EQ(Score("exact", "a  b", "a b"), 0.0);
}

TEST(Rules, LastNumberReadsSignsCommasAndFractions) {
  EXPECT_EQ(Score("last_number", "17 + 25 = 42.", "42"), 1.0);
  EXPECT_EQ(Score("last_number", "it costs $1,234.50 now", "1234.5"), 1.0);
  EXPECT_EQ(Score("last_number", "3 apples, 4 pears", "3"), 0.0);
  EXPECT_EQ(Score("last_number", "10-3", "3"), 1.0);
  EXPECT_EQ(Score("last_number", "x = -3", "-3"), 1.0);
  EXPECT_EQ(Score("last_number", "x = -3", "3"), 0.0);
  EXPECT_EQ(Score("last_number", "x = .5", "0.5"), 1.0);
  EXPECT_EQ(Score("last_number", "none", "3"), 0.0);
  EXPECT_EQ(Score("last_number", "", "3"), 0.0);
  EXPECT_EQ(Score("last_number", "3", "three"), std::nullopt);
}

TEST(Rules, BoxedBalancesBraces) {
  EXPECT_EQ(Score("boxed", "so \\boxed{1} no, \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"), 1.0);
  EXPECT_EQ(Score("boxed", "\\boxed{42.0}", "42"), 1.0);
  EXPECT_EQ(Score("boxed", "\\boxed{42", "42"), 0.0);
  EXPECT_EQ(Score("boxed", "42", "42"), 0.0);
}

TEST(Rules, AccuracyLooksWhereTheAnswerIsMarked) {
  EXPECT_EQ(Score("accuracy", "<answer>1</answer><answer> 42 </answer> or 7", "42"), 1.0);
  EXPECT_EQ(Score("accuracy", "\\boxed{42} or 7", "42"), 1.0);
  EXPECT_EQ(Score("accuracy", "7 + 35\n#### 42\nthat's 1", "42"), 1.0);
  EXPECT_EQ(Score("accuracy", "the answer is 42", "42"), 1.0);
  EXPECT_EQ(Score("accuracy", "<answer>Paris</answer>", "Paris"), 1.0);
  EXPECT_EQ(Score("accuracy", "<answer>7</answer> 42", "42"), 0.0);
  EXPECT_EQ(Score("accuracy", "</answer><answer>42", "42"), 1.0);  // no pair: the last number
  EXPECT_EQ(Score("accuracy", "no number", "42"), 0.0);
}

/// The textbook table, as the independent truth.
std::size_t SlowLcs(const std::string& a, const std::string& b) {
  std::vector<std::vector<std::size_t>> best(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t j = 0; j < b.size(); ++j) {
      best[i + 1][j + 1] = a[i] == b[j] ? best[i][j] + 1 : std::max(best[i][j + 1], best[i + 1][j]);
    }
  }
  return best[a.size()][b.size()];
}

TEST(Rules, LcsRatioAgreesWithTheTextbook) {
  EXPECT_EQ(Score("lcs_ratio", "", ""), 1.0);
  EXPECT_EQ(Score("lcs_ratio", "abc", ""), 0.0);
  EXPECT_EQ(Score("lcs_ratio", "abcd", "abcd"), 1.0);
  EXPECT_EQ(Score("lcs_ratio", "abcd", "bxd"), 2.0 * 2 / 7);
  std::uint32_t state = 1;
  const auto next = [&](std::uint32_t bound) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % bound;
  };
  for (int round = 0; round < 300; ++round) {
    std::string a(next(200), 'a'), b(next(200), 'a');
    const std::uint32_t letters = 1 + next(4);
    for (char& c : a) c = static_cast<char>('a' + next(letters));
    for (char& c : b) c = static_cast<char>(static_cast<int>('a' + next(letters)));
    const double expected = a.empty() && b.empty() ? 1.0
                                                   : 2.0 * static_cast<double>(SlowLcs(a, b)) /
                                                         static_cast<double>(a.size() + b.size());
    ASSERT_EQ(Score("lcs_ratio", a, b), expected) << a << " " << b;
  }
}

std::optional<double> With(const char* rule, const std::string& completion, const char* options,
                           std::optional<std::string_view> answer = std::nullopt,
                           const std::vector<std::int32_t>& ids = {}) {
  const Json parsed = Json::parse(options);
  RuleInput input;
  input.completion = completion;
  input.answer = answer;
  input.ids = ids;
  input.options = &parsed;
  return RunRule(*FindRule(rule), input);
}

bool Refuses(const char* rule, const char* options) {
  try {
    CheckRuleOptions(*FindRule(rule), Json::parse(options));
    return false;
  } catch (const std::invalid_argument&) {
    return true;
  }
}

TEST(Rules, Gsm8kReadsTheLineAfterTheHashes) {
  EXPECT_EQ(Score("gsm8k", "so 6*7\n#### 42", "6*7=42\n#### 42"), 1.0);
  EXPECT_EQ(Score("gsm8k", "#### $1,042", "1042"), 1.0);
  EXPECT_EQ(Score("gsm8k", "it is 42", "42"), 0.0);
  EXPECT_EQ(With("gsm8k", "it is 42", R"j({"method":"flexible"})j", "42"), 1.0);
  EXPECT_EQ(Score("gsm8k", "#### 42", "forty-two"), std::nullopt);
  EXPECT_TRUE(Refuses("gsm8k", R"j({"method":"loose"})j"));
}

TEST(Rules, MultipleChoiceFindsTheLetter) {
  for (const char* text : {"B", "(B)", "**B**", "B. Paris", "The answer is (B).", "Answer: B",
                           "\\boxed{\\text{B}}", "I think A is wrong.\nThe correct answer is B",
                           "<answer>B) Paris</answer>", "it must be (B)"}) {
    EXPECT_EQ(Score("multiple_choice", text, "B"), 1.0) << text;
    EXPECT_EQ(Score("multiple_choice", text, "C"), 0.0) << text;
  }
  EXPECT_EQ(Score("multiple_choice", "Because it rains", "B"), 0.0);
  EXPECT_EQ(Score("multiple_choice", "B", "1"), 1.0);  // an index
  EXPECT_EQ(Score("multiple_choice", "B", "?"), std::nullopt);
}

TEST(Rules, ThinkFormatIsTrls) {
  EXPECT_EQ(
      With("think_format", "<think>\nThis is my reasoning.\n</think>\nThis is my answer.", "{}"),
      1.0);
  EXPECT_EQ(With("think_format", "<think>\nThis is my reasoning.\nThis is my answer.", "{}"), 0.0);
  EXPECT_EQ(With("think_format", "<think>a<think>b</think>", "{}"), 0.0);
  EXPECT_EQ(With("think_format", " <think>a</think>", "{}"), 0.0);
  EXPECT_EQ(With("think_format", "a</think>b", R"j({"prefilled":true})j"), 1.0);
  EXPECT_EQ(With("think_format", "<think>a</think> <answer>b</answer>\n", R"j({"answer":true})j"),
            1.0);
  EXPECT_EQ(With("think_format", "<think>a</think> b", R"j({"answer":true})j"), 0.0);
}

TEST(Rules, TagsCountsThoseThatAreThereOnce) {
  EXPECT_EQ(With("tags", "<think>a</think><answer>b</answer>", "{}"), 1.0);
  EXPECT_EQ(With("tags", "<think>a</think><answer>b", "{}"), 0.5);
  EXPECT_EQ(With("tags", "<answer>b</answer><think>a</think>", "{}"), 0.0);
  EXPECT_EQ(With("tags", "<answer>b</answer><think>a</think>", R"j({"order":false})j"), 1.0);
  EXPECT_EQ(With("tags", "<a>1</a><a>2</a>", R"j({"tags":["a"]})j"), 0.0);
  EXPECT_TRUE(Refuses("tags", R"j({"tags":[]})j"));
}

TEST(Rules, RegexSearchesMatchesAndCompares) {
  EXPECT_EQ(With("regex", "it is 42!", R"j({"pattern":"[0-9]+"})j"), 1.0);
  EXPECT_EQ(With("regex", "it is 42!", R"j({"pattern":"[0-9]+","full":true})j"), 0.0);
  EXPECT_EQ(With("regex", "x = 42", R"j({"pattern":"x = ([0-9]+)","group":1
})j",
                 "42.0"),
            1.0);
  EXPECT_EQ(With("regex", "x = 41", R"j({"pattern":"x = ([0-9]+)","group":1
})j",
                 "42"),
            0.0);
  EXPECT_EQ(With("regex", std::string(100000, 'a'), R"j({"pattern":"(a*)*b"})j"), 0.0);
  for (const char* options :
       {"{}", R"j({"pattern":"("})j", R"j({"pattern":"(?=a)"})j", R"j({"pattern":"a","group":1})j",
        R"j({"pattern":3})j", R"j({"patern":"a"})j"}) {
    EXPECT_TRUE(Refuses("regex", options)) << options;
  }
}

TEST(Rules, JsonChecksFormAndSchema) {
  const char* const schema =
      R"j({"schema":{"type":"object","required":["a"],"properties":{"a":{"type":"integer","minimum":1},"b":{"enum":["x",{"k":1,"l":2}]}},"additionalProperties":false}})j";
  EXPECT_EQ(With("json", " {\"a\": 1} ", "{}"), 1.0);
  EXPECT_EQ(With("json", "{\"a\": 1,}", "{}"), 0.0);
  EXPECT_EQ(With("json", "{\"a\": 1} {}", "{}"), 0.0);
  EXPECT_EQ(With("json", "see:\n```json\n{\"a\": 1}\n```\n", R"j({"whole":false})j"), 1.0);
  EXPECT_EQ(With("json", "{\"a\": 2, \"b\": {\"l\": 2, \"k\": 1}}", schema), 1.0);
  EXPECT_EQ(With("json", "{\"a\": 0}", schema), 0.0);
  EXPECT_EQ(With("json", "{\"a\": 1.5}", schema), 0.0);
  EXPECT_EQ(With("json", "{\"b\": \"x\"}", schema), 0.0);
  EXPECT_EQ(With("json", "{\"a\": 1, \"c\": 1}", schema), 0.0);
  EXPECT_EQ(With("json", "[1, 2]",
                 R"j({"schema":{"type":"array","items":{"type":"number"},"minItems":2}})j"),
            1.0);
  EXPECT_EQ(With("json", "[1]", R"j({"schema":{"not":{"maxItems":1}}})j"), 0.0);
  EXPECT_TRUE(Refuses("json", R"j({"schema":{"$ref":"#/x"}})j"));
  EXPECT_TRUE(Refuses("json", R"j({"schema":{"type":"text"}})j"));
}

TEST(Rules, CountdownIsExact) {
  const char* const options = R"j({"numbers":[8,3,8,3],"target":24})j";
  EXPECT_EQ(With("countdown", "<answer>8/(3-8/3)</answer>", options), 1.0);
  EXPECT_EQ(With("countdown", "8 \xC3\xB7 (3 - 8 / 3) = 24", options), 1.0);
  EXPECT_EQ(With("countdown", "first 1+1\nthen (8 \\div (3 - 8 / 3))",
                 R"j({"numbers":[8,3,8,3],"target":24})j"),
            0.0);
  EXPECT_EQ(With("countdown", "<answer>8*3</answer>", options), 0.0);
  EXPECT_EQ(With("countdown", "<answer>8*3</answer>",
                 R"j({"numbers":[8,3,8,3],"target":24,"use_all":false})j"),
            1.0);
  EXPECT_EQ(With("countdown", "<answer>8/(3-3)+8</answer>", options), 0.0);
  EXPECT_EQ(With("countdown", "<answer>24</answer>", options), 0.0);
  EXPECT_EQ(With("countdown", "<answer>8*3</answer>", R"j({"numbers":[8,3]})j", "24"), 1.0);
  EXPECT_EQ(With("countdown", "<answer>-(2 - 5)</answer>", R"j({"numbers":[2,5],"target":3})j"),
            1.0);
  EXPECT_TRUE(Refuses("countdown", "{}"));
}

TEST(Rules, SoftOverlongAndRepetitionAreTrls) {
  const char* const options = R"j({"max_length":100,"buffer":20})j";
  const auto at = [&](std::size_t n) {
    return With("soft_overlong", "x", options, std::nullopt, std::vector<std::int32_t>(n, 1));
  };
  EXPECT_EQ(at(80), 0.0);
  EXPECT_EQ(at(90), -0.5);
  EXPECT_EQ(at(100), -1.0);
  EXPECT_EQ(at(101), -1.0);
  EXPECT_TRUE(Refuses("soft_overlong", R"j({"max_length":100})j"));
  EXPECT_TRUE(Refuses("soft_overlong", R"j({"max_length":100,"buffer":101})j"));
  EXPECT_EQ(With("repetition_penalty", "", R"j({"ngram_size":2})j", std::nullopt, {1, 2, 3, 4}),
            0.0);
  EXPECT_EQ(With("repetition_penalty", "", R"j({"ngram_size":2})j", std::nullopt, {5, 5, 5, 5, 5}),
            -0.75);
  EXPECT_EQ(With("repetition_penalty", "", "{}", std::nullopt, {1, 2}), 0.0);
  EXPECT_EQ(With("repetition_penalty", "a b A b a b", R"j({"ngram_size":2})j"), -0.6);
}

TEST(Rules, CosineScaledFavoursShortRightAnswers) {
  const auto at = [](const char* text, std::size_t n) {
    return *With("cosine_scaled", text, R"j({"max_length":100})j", "42",
                 std::vector<std::int32_t>(n, 1));
  };
  EXPECT_DOUBLE_EQ(at("42", 0 + 1) > 0.99, true);
  EXPECT_NEAR(at("42", 50), 0.75, 1e-12);
  EXPECT_NEAR(at("42", 100), 0.5, 1e-12);
  EXPECT_NEAR(at("7", 50), -0.75, 1e-12);
  EXPECT_NEAR(at("7", 100), -0.5, 1e-12);
  EXPECT_NEAR(at("7", 500), -0.5, 1e-12);
}

TEST(Rules, LanguageCountsWordsOfAScript) {
  EXPECT_EQ(With("language", "all of it is English, 100 %", "{}"), 1.0);
  EXPECT_EQ(With("language", "two words \u4f60\u597d", "{}"), 0.5);
  EXPECT_EQ(With("language", "two words \u4f60\u597d", R"j({"language":"zh"})j"), 0.5);
  EXPECT_EQ(With("language", "\u043f\u0440\u0438\u0432\u0435\u0442 world",
                 R"j({"language":"ru","min":0.6})j"),
            0.0);
  EXPECT_EQ(With("language", "123 + 4", "{}"), std::nullopt);
  EXPECT_EQ(With("language", "\xff\xfe ab", "{}"), 1.0);
  EXPECT_TRUE(Refuses("language", R"j({"language":"xx"})j"));
}

}  // namespace
}  // namespace temper::reward
