// The rule `math` beside math-verify's verdicts, and what it reads and refuses.
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "configs/json.h"
#include "reward/extract.h"
#include "reward/math_equal.h"
#include "reward/rules.h"

namespace temper::reward {
namespace {

bool Same(std::string_view found, std::string_view answer) {
  return SameMath(ReadAnswer(found), ReadAnswer(answer));
}

double Math(std::string_view completion, std::string_view answer) {
  return RunRule(*FindRule("math"), completion, answer).value_or(-1);
}

/// The kinds of disagreement that docs/rewards.md judges; "" for any other.
std::string JudgedAs(const std::string& found, const std::string& answer) {
  if (!found.empty() && found.back() == '.') return "full stop";
  if (found.find("\\,") != std::string::npos) return "thin space";
  if (found.find("/") != std::string::npos && found.find(" \\pi") != std::string::npos) {
    return "a/b pi";
  }
  if (found.size() == 5 && found[0] == '2' && found[1] == ' ') return "spaced letters";
  if (found.rfind("\\text{", 0) == 0 && answer.find('%') != std::string::npos) {
    return "number in text";
  }
  if (found == "true") return "truth value";
  if (found.find("\\sqrt ") != std::string::npos) return "bare root";
  return "";
}

TEST(MathRule, AgreesWithMathVerifyButForWhatIsJudged) {
  std::ifstream file(std::string(TEMPER_SOURCE_DIR) + "/tests/reward/data/math_pairs.jsonl");
  ASSERT_TRUE(file);
  std::map<std::string, int> judged, pairs;
  for (std::string line; std::getline(file, line);) {
    const Json pair = Json::parse(line);
    const std::string completion = pair["completion"], answer = pair["answer"];
    ++pairs[pair["kind"]];
    const bool ours = Math(completion, answer) == 1.0;
    if (ours == pair["same"].get<bool>()) continue;
    const std::string kind = JudgedAs(std::string(*LastBoxed(completion)), answer);
    EXPECT_NE(kind, "") << completion << " against " << answer << ": ours " << ours;
    EXPECT_NE(pair["kind"], "plain") << completion << " against " << answer;
    ++judged[kind];
  }
  int all = 0, different = 0;
  for (const auto& [kind, count] : pairs) all += count;
  for (const auto& [kind, count] : judged) different += count;
  EXPECT_GE(all, 2000);
  EXPECT_GE(pairs["plain"], 800);
  EXPECT_LE(different, 80);
}

TEST(MathRule, ComparesFractionsExactly) {
  EXPECT_TRUE(Same("\\frac{1}{3}", "2/6"));
  EXPECT_TRUE(Same("0.75", "\\frac34"));
  EXPECT_TRUE(Same("1.500", "3/2"));
  EXPECT_TRUE(Same("2\\frac{1}{2}", "5/2"));
  EXPECT_FALSE(Same("0.33", "1/3"));
  EXPECT_TRUE(Same("0.333333", "1/3"));  // six decimals
  EXPECT_FALSE(Same("12345678901234567890", "12345678901234567891"));
  EXPECT_FALSE(Same("\\frac{1}{23}", "\\frac{12}{3}"));
  EXPECT_TRUE(Same("(\\sqrt{2})^2", "2"));
  EXPECT_TRUE(Same("8^{2/3}", "4"));
}

TEST(MathRule, TellsBracketsOrdersAndSetsApart) {
  EXPECT_TRUE(Same("\\{3, 1, 2\\}", "\\{1,2,3\\}"));
  EXPECT_FALSE(Same("(3, 1, 2)", "(1,2,3)"));
  EXPECT_FALSE(Same("[1,2)", "[1,2]"));
  EXPECT_TRUE(Same("x \\ge 2", "[2, \\infty)"));
  EXPECT_TRUE(Same("-1 < x \\leq 3", "(-1, 3]"));
  EXPECT_TRUE(Same("1 \\pm \\sqrt{2}", "1-\\sqrt2, 1+\\sqrt2"));
  EXPECT_TRUE(Same("x = 5", "5"));
  EXPECT_FALSE(Same("x = 5", "6"));
  EXPECT_TRUE(Same("2x + y = 3", "y = 3 - 2x"));
  EXPECT_FALSE(Same("2x + y = 3", "y = 3 + 2x"));
  EXPECT_FALSE(Same("\\emptyset", "0"));
  EXPECT_TRUE(Same("\\{\\}", "\\emptyset"));
}

TEST(MathRule, DropsUnitsAndReadsWords) {
  EXPECT_TRUE(Same("5 \\text{ cm}^2", "5"));
  EXPECT_TRUE(Same("60 miles/hour", "60"));
  EXPECT_TRUE(Same("45^\\circ", "45"));
  EXPECT_TRUE(Same("50\\%", "0.5"));
  EXPECT_TRUE(Same("\\text{Evelyn}", "evelyn"));
  EXPECT_FALSE(Same("\\text{Evelyn}", "Carla"));
  EXPECT_TRUE(Same("\\text{(B)}", "B"));
}

TEST(MathRule, FindsTheFinalAnswer) {
  EXPECT_EQ(Math("first \\boxed{1}, then \\boxed{\\frac{1}{2}}", "0.5"), 1.0);
  EXPECT_EQ(Math("<answer> 7 </answer>", "7"), 1.0);
  EXPECT_EQ(Math("#### 1,234", "1234"), 1.0);
  EXPECT_EQ(Math("The final answer is $x=3$. I hope it is correct.", "3"), 1.0);
  EXPECT_EQ(Math("so we get $a$ and then $\\sqrt{12}$", "2\\sqrt{3}"), 1.0);
  EXPECT_EQ(Math("there are 3 dogs and 4 cats", "4"), 1.0);
  EXPECT_EQ(Math("\\boxed{", "4"), 0.0);
  EXPECT_EQ(Math("", "4"), 0.0);
  EXPECT_EQ(Math("4", ""), -1);
  EXPECT_EQ(Math("\\boxed{4}", "We add them up: $\\boxed{4}$."), 1.0);
}

TEST(MathRule, SurvivesHostileText) {
  const std::string deep(1500, '('), braces(1500, '{');
  EXPECT_FALSE(Same(deep, "1"));
  EXPECT_FALSE(Same(braces, "1"));
  EXPECT_FALSE(Same("9^{9^{9^{9}}}", "1"));
  EXPECT_FALSE(Same("1/0", "1"));
  EXPECT_FALSE(Same("\\frac{1}{0}", "\\infty"));
  EXPECT_FALSE(Same("1000!", "1"));
  EXPECT_FALSE(Same("\\begin{pmatrix}", "1"));
  EXPECT_FALSE(Same(std::string("\xff\x00\xfe", 3), "1"));
  EXPECT_FALSE(Same("-----", "1"));
  std::uint32_t state = 5;
  const std::string alphabet = "0123456789xyz{}()[]|\\^_,.+-*/=<>% fracsqrtpitext&";
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (int k = 0; k < 24; ++k) {
      state = state * 1664525u + 1013904223u;
      text += alphabet[(state >> 8) % alphabet.size()];
    }
    const MathAnswer answer = ReadAnswer(text);
    EXPECT_TRUE(SameMath(answer, answer)) << text;
    Same(text, "1");
  }
}

}  // namespace
}  // namespace temper::reward
