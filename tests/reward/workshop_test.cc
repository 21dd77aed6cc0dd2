// Cases, lint and tasks; and that the library's own cases hold.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "configs/error.h"
#include "reward/cases.h"
#include "reward/lint.h"
#include "reward/task.h"
#include "tests/reward/fixtures.h"

namespace temper::reward {
namespace {

const std::string kLibrary = std::string(TEMPER_SOURCE_DIR) + "/reward/library/";

std::string Refusal(const std::string& json) {
  try {
    ReadCase(configs::ParseJson(json, "c.jsonl:3"), "c.jsonl:3");
    return "";
  } catch (const UserError& error) {
    return error.what();
  }
}

TEST(Cases, RefuseWhatTheyDoNotKnow) {
  EXPECT_EQ(Refusal(R"({"completion":"x","expect":{"score":1}})"), "");
  EXPECT_EQ(Refusal(R"({"completion":"x","expect":{"score":1},"rows":{}})"),
            "c.jsonl:3: unknown field \"rows\"; known are name, prompt, completion, "
            "completion_ids, row, answer, finish_reason, samples, expect, tolerance");
  EXPECT_EQ(Refusal(R"({"completion":"x"})"), "c.jsonl:3: expect is missing");
  EXPECT_EQ(Refusal(R"({"expect":{"score":1}})"), "c.jsonl:3: completion is missing");
  EXPECT_NE(Refusal(R"({"completion":"x","expect":{"status":"bad"}})"), "");
  EXPECT_NE(Refusal(R"({"completion":"x","expect":{"score":"1"}})"), "");
  EXPECT_NE(Refusal(R"({"samples":[{"completion":"x"}],"expect":[]})"), "");
  EXPECT_NE(Refusal(R"({"samples":[],"expect":[]})"), "");
}

TEST(Cases, TellAWrongExpectationFromARightOne) {
  HostOptions options = With({Script("function score(s) return {score = 0.5, part = 2} end")});
  RewardHost host(std::move(options));
  const auto run = [&](const std::string& expect) {
    return RunCase(
        ReadCase(configs::ParseJson(R"({"completion":"x","expect":)" + expect + "}", "c"), "c"),
        "f", host);
  };
  EXPECT_TRUE(run(R"({"score":0.5,"part":2})").ok);
  EXPECT_TRUE(run(R"({"score":0.5000001})").ok);
  EXPECT_EQ(run(R"({"score":0.6})").why, "score is 0.5, expected 0.6");
  EXPECT_EQ(run(R"({"other":1})").why, "other is missing, expected 1");
  EXPECT_EQ(run(R"({"status":"budget"})").why, "status is ok, expected budget");
}

TEST(Cases, OfEveryScriptInTheLibraryHold) {
  int scripts = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kLibrary)) {
    HostOptions options;
    options.limits.timeout_s = 10;
    options.functions = {ParseRewardArgument(entry.path())};
    const FunctionSpec function = options.functions[0];
    const std::vector<Case> cases = CasesOfScript(function, options);
    EXPECT_GE(cases.size(), 3u) << entry.path();
    ++scripts;
    HostOptions again = options;
    RewardHost host(std::move(options));
    for (const Case& c : cases) {
      const CaseResult result = RunCase(c, function.name, host);
      EXPECT_TRUE(result.ok) << entry.path() << ": " << c.name << ": " << result.why;
    }
    for (const Finding& finding : Lint(function, again, cases[0].samples[0])) {
      ADD_FAILURE() << entry.path() << ":" << finding.line << ": " << finding.message;
    }
  }
  EXPECT_GE(scripts, 10);
}

std::string LintOf(const std::string& script) {
  std::string all;
  for (const Finding& finding : LintText(script)) {
    all += (all.empty() ? "" : " | ") + std::to_string(finding.line) + " " + finding.message;
  }
  return all;
}

TEST(Lint, NamesWhatNothingDefines) {
  EXPECT_EQ(LintOf("local n = 1\nfunction score(s)\n  return n + m\nend"), "3 nothing defines 'm'");
  EXPECT_EQ(LintOf("function score(s) return tonmuber(s.completion) end"),
            "1 nothing defines 'tonmuber'; did you mean 'tonumber'?");
  EXPECT_EQ(LintOf("function score(s)\n return os.time()\nend"),
            "2 os is not there in the sandbox");
  EXPECT_EQ(LintOf("function score(s) return string.fnd(s, 'x') end"),
            "1 string.fnd does not exist here; did you mean 'find'?");
  EXPECT_EQ(LintOf("function score(s) return rules.maths(s) end"),
            "1 rules.maths does not exist here; did you mean 'math'?");
  // None of these is a mistake.
  EXPECT_EQ(LintOf("local a, b <const> = 1, 2\nfor i, v in ipairs({x = 1}) do c, d = i, v end\n"
                   "function score(s) goto done ::done:: local t = {os = 1} return t.os .. s.io.y "
                   "end -- os.exit\n"
                   "local s = 'os' .. [[ io.open ]] --[==[ load() ]==]\n"
                   "local function f(x, ...) return select('#', ...) + x + a + b + c + d end"),
            "");
}

TEST(Lint, TriesHostileCompletions) {
  const auto findings = [](const std::string& script) {
    HostOptions options;
    options.limits.timeout_s = 5;
    std::set<std::string> messages;
    for (const Finding& finding : Lint(Script(script), options, Sample("x"))) {
      messages.insert(finding.kind + ": " +
                      finding.message.substr(0, finding.message.find(": ", 14)));
    }
    return messages;
  };
  EXPECT_TRUE(findings("function score(s) return #s.completion end").empty());
  EXPECT_EQ(findings("function score(s) return tonumber(s.completion:match('%d+')) * 1 end")
                .count("trial: completion 'empty'"),
            1u);
  EXPECT_EQ(findings("function score(s) return #s.answer end")
                .count("trial: completion 'no answer in the row'"),
            1u);
  EXPECT_EQ(findings("function score(s) return (s.completion:find('.-.-x')) or 0 end")
                .count("trial: completion '1 MB of one letter'"),
            1u);
  EXPECT_EQ(findings("function score(").size(), 1u);
}

TEST(Task, MakesTheSameRowsAndKeepsTheHeldOutOnesApart) {
  TaskOptions options;
  options.seed = 5;
  options.heldout = 100;
  options.limits.timeout_s = 20;
  for (const char* name :
       {"arithmetic", "countdown", "reverse_text", "sorting", "brackets", "base_conversion"}) {
    const std::string script = kLibrary + name + ".lua";
    const std::vector<std::string> train = TrainRows(script, options, 250);
    const std::vector<std::string> heldout = HeldoutRows(script, options, 100);
    ASSERT_EQ(train.size(), 250u);
    EXPECT_EQ(TrainRows(script, options, 250), train) << name;
    const std::vector<std::string> fewer = TrainRows(script, options, 120);
    EXPECT_TRUE(std::equal(fewer.begin(), fewer.end(), train.begin())) << name;
    std::set<std::string> held;
    for (const std::string& row : heldout) held.insert(Json::parse(row)["prompt"]);
    EXPECT_EQ(held.size(), 100u) << name;
    for (const std::string& row : train) {
      EXPECT_EQ(held.count(Json::parse(row)["prompt"]), 0u) << name << ": " << row;
    }
    TaskOptions other = options;
    other.seed = 6;
    EXPECT_NE(TrainRows(script, other, 250), train) << name;
  }
}

TEST(Task, RefusesAScriptThatMakesNoRows) {
  const auto refusal = [](const std::string& text) -> std::string {
    const std::string path = testing::TempDir() + "temper_task.lua";
    std::ofstream(path, std::ios::trunc) << text;
    try {
      HeldoutRows(path, {}, 5);
      return "";
    } catch (const UserError& error) {
      return std::string(error.what()).substr(path.size());
    }
  };
  const std::string score = "function score() return 1 end\n";
  EXPECT_EQ(refusal(score), ": script_error: the script defines no function prompts(rng, n)");
  EXPECT_EQ(refusal(score + "function prompts(rng, n)\n  return {}\nend"),
            ": script_error: prompts(rng, 100) must return a list of 100 rows");
  EXPECT_EQ(refusal(score +
                    "function prompts(rng, n)\n  local t = {}\n  for i = 1, n do t[i] = {} end\n  "
                    "return t\nend"),
            ": script_error: prompts(): row 1 has no `prompt` (a text or a list of messages)");
  EXPECT_NE(refusal(score +
                    "function prompts(rng, n)\n  local t = {}\n  for i = 1, n do t[i] = {prompt = "
                    "'same'} end\n  return t\nend")
                .find("only 1 different prompts"),
            std::string::npos);
}

TEST(ScoreGroup, SeesAllSamplesAndAnswersForEach) {
  RewardHost host(
      With({Script("function score_group(list)\n"
                   "  local r = {}\n"
                   "  for i, s in ipairs(list) do\n"
                   "    if s.completion ~= 'skip' then r[i] = {score = i, n = #list} end\n"
                   "  end\n"
                   "  return r\n"
                   "end")}));
  const auto results =
      host.ScoreGroup(std::vector{Sample("a"), Sample("skip"), Sample("c"), Sample("skip")});
  EXPECT_EQ(results[0].score, 1.0);
  EXPECT_EQ(results[1].status, "not_applicable");
  EXPECT_EQ(results[2].score, 3.0);
  EXPECT_EQ(results[2].parts[1].value, 4.0);
  EXPECT_EQ(results[3].status, "not_applicable");
}

TEST(ScoreGroup, FailsForAllOrForNone) {
  const auto statuses = [](const std::string& body) {
    RewardHost host(With({Script("function score_group(list) " + body + " end")}, 0.3));
    std::set<std::string> all;
    for (const auto& r : host.ScoreGroup(std::vector{Sample("a"), Sample("b")}))
      all.insert(r.status);
    return all;
  };
  EXPECT_EQ(statuses("return {1, 2}"), std::set<std::string>{"ok"});
  EXPECT_EQ(statuses("return {1, 2, 3}"), std::set<std::string>{"invalid_return"});
  EXPECT_EQ(statuses("return 1"), std::set<std::string>{"invalid_return"});
  EXPECT_EQ(statuses("error('no')"), std::set<std::string>{"script_error"});
  EXPECT_EQ(statuses("while true do end"), std::set<std::string>{"budget"});
  EXPECT_EQ(statuses("local a, b = ('x'):rep(1 << 22), ('x'):rep(1 << 22) while a == b do end"),
            std::set<std::string>{"timeout"});
  EXPECT_EQ(statuses("return {1, 'x'}"), (std::set<std::string>{"ok", "invalid_return"}));
}

TEST(Aggregation, NormalisesEachFunctionInTheGroupBeforeItAdds) {
  HostOptions options =
      With({Script("function score(s) return #s.completion * 100 end", "large", 1.0),
            Script("function score(s) return s.completion == 'bb' and 1 or 0 end", "small", 2.0)});
  options.aggregation = "normalize_then_sum";
  RewardHost host(std::move(options));
  const auto results = host.ScoreGroup(std::vector{Sample("a"), Sample("bb"), Sample("ccc")});
  // TRL: z = (r - mean) / (std + 1e-4) a function, std with n - 1, then the weighted sum.
  const double large = 100 / (100 + 1e-4), small_std = std::sqrt(1.0 / 3) + 1e-4;
  EXPECT_NEAR(*results[0].score, -large + 2 * (-1.0 / 3) / small_std, 1e-12);
  EXPECT_NEAR(*results[1].score, 0 + 2 * (2.0 / 3) / small_std, 1e-12);
  EXPECT_NEAR(*results[2].score, large + 2 * (-1.0 / 3) / small_std, 1e-12);
  EXPECT_EQ(results[1].parts[0].value, 200.0);  // parts keep what the function gave
}

}  // namespace
}  // namespace temper::reward
