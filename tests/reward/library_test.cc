// The scripts that ship with the program, and what a script may rely on.
#include <gtest/gtest.h>

#include "reward/function.h"
#include "reward/sandbox.h"

namespace temper::reward {
namespace {

Outcome RunScript(const std::string& text, const std::string& completion,
                  const std::string& answer) {
  Job job;
  job.name = "script.lua";
  job.script = text;
  SampleInput sample;
  sample.prompt_json = "\"p\"";
  sample.completion = completion;
  sample.answer = answer;
  return RunFunction(job, sample);
}

Outcome Library(const std::string& name, const std::string& completion, const std::string& answer) {
  return RunScript(ReadScript(std::string(TEMPER_SOURCE_DIR) + "/reward/library/" + name),
                   completion, answer);
}

void ExpectSum(const std::string& completion, double score, double format) {
  const Outcome outcome = Library("sum.lua", completion, "50");
  EXPECT_EQ(outcome.score, score) << completion << ": " << outcome.message;
  ASSERT_EQ(outcome.fields.size(), 1u);
  EXPECT_EQ(outcome.fields[0], std::make_pair(std::string("format"), format)) << completion;
}

TEST(SumScript, RewardsTheOneNumberInBracketsAtTheEnd) {
  ExpectSum("17+25=42;42+8=50;<50>", 1, 1);
  ExpectSum("17+25=42;<50>\n", 1, 1);
  ExpectSum("<50> and more", 0, 0);
  ExpectSum("<50>>>", 0, 0);
  ExpectSum("<1><50>", 0, 0);
  ExpectSum("<50><1>", 0, 0);
  ExpectSum("<51>", 0, 1);
  ExpectSum("<50.0>", 0, 0);
  ExpectSum("50", 0, 0);
  ExpectSum("", 0, 0);
  EXPECT_EQ(Library("sum.lua", "<50>", "many").status, Status::kNotApplicable);
  EXPECT_EQ(Library("sum.lua", "<-7>", "-7").score, 1.0);
}

TEST(ReverseTextScript, RewardsWhatIsThereInOrder) {
  EXPECT_EQ(Library("reverse_text.lua", "cba", "cba").score, 1.0);
  EXPECT_EQ(Library("reverse_text.lua", "abc", "cba").score, 2.0 / 6);
  EXPECT_EQ(Library("reverse_text.lua", "", "cba").score, 0.0);
}

TEST(Environment, OffersTheRulesAndRefusesOptionsTheyDoNotHave) {
  EXPECT_EQ(
      RunScript("function score(s) return rules.accuracy(s.completion, 42) end", "42", "").score,
      1.0);
  EXPECT_EQ(
      RunScript("function score(s) return rules.accuracy(s.completion, nil) end", "42", "").status,
      Status::kNotApplicable);
  const Outcome outcome =
      RunScript("function score(s) return rules.exact('a', 'a', {case = 1}) end", "", "");
  EXPECT_EQ(outcome.status, Status::kScriptError);
  EXPECT_NE(outcome.message.find("unknown option"), std::string::npos) << outcome.message;
}

TEST(Environment, DrawsNumbersInRange) {
  const Outcome outcome = RunScript(R"lua(
    function score(s)
      local low, high = 9, 0
      for i = 1, 2000 do
        local n = math.random(3, 5)
        low, high = math.min(low, n), math.max(high, n)
        local u = math.random()
        assert(u >= 0 and u < 1 and math.random(1) == 1)
        assert(math.type(math.random(math.mininteger, math.maxinteger)) == "integer")
      end
      assert(low == 3 and high == 5)
      assert(not pcall(math.random, 5, 3))
      math.randomseed(7)
      local a = math.random(1000000)
      math.randomseed(7)
      assert(a == math.random(1000000))
      return 1
    end)lua",
                                    "", "");
  EXPECT_EQ(outcome.status, Status::kOk) << outcome.message;
}

TEST(Environment, KeepsTheUsefulPartsOfTheLanguage) {
  const Outcome outcome = RunScript(R"lua(
    function score(s)
      local ok, message = pcall(error, "x")
      assert(not ok and message == "x")
      local done, text = xpcall(function(a) error(a, 0) end, function(m) return m .. "!" end, "y")
      assert(not done and text == "y!")
      assert(select(2, xpcall(function(a, b) return a + b end, tostring, 1, 2)) == 3)
      local t = setmetatable({}, {__index = function(_, k) return k .. "?" end,
                                  __tostring = function() return "named" end})
      assert(t.a == "a?" and tostring(t) == "named" and ("%s"):format(t) == "named")
      assert(("ab"):rep(3, "-") == "ab-ab-ab" and ("x"):rep(0) == "" and ("%5.1f|%d"):format(2.25, 7) == "  2.2|7")
      assert(table.concat({1, 2}, ",") == "1,2" and utf8.len("äö") == 2)
      assert(("k=v"):match("(%w+)=(%w+)") == "k" and tostring(1.5) == "1.5" and tostring(nil) == "nil")
      return 1
    end)lua",
                                    "", "");
  EXPECT_EQ(outcome.status, Status::kOk) << outcome.line << ": " << outcome.message;
}

}  // namespace
}  // namespace temper::reward
