#include "reward/rules.h"

#include <gtest/gtest.h>

#include <string>

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

}  // namespace
}  // namespace temper::reward
