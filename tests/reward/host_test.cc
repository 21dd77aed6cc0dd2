#include "reward/host.h"

#include <signal.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <thread>

#include "configs/error.h"
#include "reward/function.h"
#include "tests/reward/zygote_entry.h"

namespace temper::reward {
namespace {

FunctionSpec Script(const std::string& text, const std::string& name = "f", double weight = 1.0) {
  FunctionSpec spec;
  spec.name = name;
  spec.path = name + ".lua";
  spec.script = text;
  spec.weight = weight;
  spec.sha256 = Sha256Hex(text);
  return spec;
}

HostOptions With(std::vector<FunctionSpec> functions, double timeout_s = 10) {
  HostOptions options;
  options.functions = std::move(functions);
  options.limits.timeout_s = timeout_s;
  return options;
}

SampleInput Sample(const std::string& completion, const std::string& answer = "42") {
  SampleInput sample;
  sample.prompt_json = "\"17 + 25 =\"";
  sample.completion = completion;
  sample.completion_ids = {1, 2, 3};
  sample.answer = answer;
  sample.row_json = R"({"answer":42,"level":{"n":[1,2.5,null,"x"]},"big":18446744073709551615})";
  sample.finish_reason = "stop";
  sample.version = 17;
  sample.step = 3;
  return sample;
}

ScoreResult ScoreOne(const std::string& script, const std::string& completion = "42") {
  RewardHost host(With({Script(script)}));
  const std::vector<SampleInput> samples = {Sample(completion)};
  return host.ScoreGroup(samples).at(0);
}

std::string StatusOf(const std::string& script) {
  const ScoreResult result = ScoreOne(script);
  EXPECT_EQ(result.score.has_value(), result.status == "ok") << script;
  EXPECT_EQ(result.parts.at(0).status, result.status) << script;
  return result.status;
}

/// The one child of a process, from the kernel's list.
pid_t OnlyChild(pid_t pid) {
  const std::string id = std::to_string(pid);
  std::ifstream file("/proc/" + id + "/task/" + id + "/children");
  pid_t child = 0;
  file >> child;
  return child;
}

void KillOne(pid_t pid) {
  ASSERT_GT(pid, 1);
  ASSERT_EQ(kill(pid, SIGKILL), 0);
}

TEST(RewardHost, GivesAScriptTheWholeSample) {
  const ScoreResult result = ScoreOne(R"(
    function score(s)
      assert(s.prompt == "17 + 25 =" and s.messages[1].role == "user")
      assert(s.messages[1].content == s.prompt and s.completion == "42" and s.answer == "42")
      assert(#s.completion_ids == 3 and s.completion_ids[3] == 3)
      assert(s.row.answer == 42 and math.type(s.row.answer) == "integer")
      assert(s.row.level.n[2] == 2.5 and s.row.level.n[3] == nil and s.row.level.n[4] == "x")
      assert(s.row.big == 2^64 and s.finish_reason == "stop" and s.version == 17 and s.step == 3)
      return 0.25
    end)");
  EXPECT_EQ(result.status, "ok") << result.parts[0].message;
  EXPECT_EQ(result.score, 0.25);
  EXPECT_EQ(result.parts[0].name, "f");
  EXPECT_EQ(result.parts[0].script_sha256.size(), 64u);
}

TEST(RewardHost, GivesTheLastUserMessageOfAConversationAsPrompt) {
  RewardHost host(With({Script(
      "function score(s) assert(s.prompt == 'b' and #s.messages == 3 and not s.answer) return 1 "
      "end")}));
  SampleInput sample = Sample("x");
  sample.prompt_json =
      R"([{"role":"user","content":"a"},{"role":"assistant","content":"c"},{"role":"user","content":"b"}])";
  sample.answer.reset();
  EXPECT_EQ(host.ScoreGroup(std::vector{sample})[0].status, "ok");
}

TEST(RewardHost, LogsTheNumbersOfATableAsParts) {
  const ScoreResult result = ScoreOne(
      "function score() return {score = 1, format = 0.5, correct = 2, note = 'x', [1] = 7} end");
  EXPECT_EQ(result.score, 1.0);
  ASSERT_EQ(result.parts.size(), 3u);
  EXPECT_EQ(result.parts[1].name, "f/correct");
  EXPECT_EQ(result.parts[1].value, 2.0);
  EXPECT_EQ(result.parts[1].weight, 0.0);
  EXPECT_EQ(result.parts[2].name, "f/format");
}

TEST(RewardHost, NamesEveryWayAScriptCanEnd) {
  EXPECT_EQ(StatusOf("function score() return 0 end"), "ok");
  EXPECT_EQ(StatusOf("function score() return nil end"), "not_applicable");
  EXPECT_EQ(StatusOf("function score() error('no') end"), "script_error");
  EXPECT_EQ(StatusOf("function score() error({}) end"), "script_error");
  EXPECT_EQ(StatusOf("function score("), "script_error");
  EXPECT_EQ(StatusOf("x = 1"), "script_error");
  EXPECT_EQ(StatusOf("function score() while true do end end"), "budget");
  EXPECT_EQ(StatusOf("while true do end"), "budget");
  EXPECT_EQ(StatusOf("function score() local s = 'x' while true do s = s .. s end end"), "memory");
  EXPECT_EQ(StatusOf("function score() return 0/0 end"), "invalid_return");
  EXPECT_EQ(StatusOf("function score() return 1/0 end"), "invalid_return");
  EXPECT_EQ(StatusOf("function score() return '1' end"), "invalid_return");
  EXPECT_EQ(StatusOf("function score() return true end"), "invalid_return");
  EXPECT_EQ(StatusOf("function score() return {} end"), "invalid_return");
  EXPECT_EQ(StatusOf("function score() return {score = '1'} end"), "invalid_return");
  EXPECT_EQ(StatusOf("function score() return {score = 1, part = 0/0} end"), "invalid_return");
  EXPECT_EQ(StatusOf("function score() end"), "invalid_return");
}

TEST(RewardHost, SaysTheLineOfAnError) {
  ScoreResult result = ScoreOne("function score(s)\n  local x = nil\n  return x.y\nend");
  EXPECT_EQ(result.parts[0].line, 3);
  EXPECT_EQ(result.parts[0].message, "attempt to index a nil value (local 'x')");
  result = ScoreOne("function score(s)\n  while true do\n  end\nend");
  EXPECT_EQ(result.parts[0].message, "more than 1000000 instructions");
  EXPECT_TRUE(result.parts[0].line == 2 || result.parts[0].line == 3) << result.parts[0].line;
  result = ScoreOne("function score(s)\n\n  return = 1\nend");
  EXPECT_EQ(result.parts[0].line, 3);
  result = ScoreOne("function score(s) error('\\xff\\xfe bad', 0) end");
  EXPECT_EQ(result.parts[0].message, "\xEF\xBF\xBD\xEF\xBF\xBD bad");
}

TEST(RewardHost, LetsNoScriptSwallowItsLimits) {
  EXPECT_EQ(StatusOf("function score()\n"
                     "  while true do pcall(function() while true do end end) end\n"
                     "end"),
            "budget");
  EXPECT_EQ(StatusOf("function score()\n"
                     "  local function h() while true do end end\n"
                     "  while true do xpcall(function() while true do end end, h) end\n"
                     "end"),
            "budget");
  EXPECT_EQ(StatusOf("function score()\n"
                     "  pcall(function() while true do end end)\n"
                     "  return 1\n"
                     "end"),
            "budget");
  EXPECT_EQ(StatusOf("function score()\n"
                     "  pcall(function() local t = {} for i = 1, 1e9 do t[i] = 'x' .. i end end)\n"
                     "  return 1\n"
                     "end"),
            "budget");
  EXPECT_EQ(StatusOf("function score()\n"
                     "  pcall(function() local s = ('x'):rep(1000000)\n"
                     "    local t = {} while true do t[#t + 1] = s .. #t end end)\n"
                     "  return 1\n"
                     "end"),
            "memory");
  EXPECT_EQ(StatusOf("function score() return #('x'):rep(1 << 40) end"), "script_error");
  EXPECT_EQ(StatusOf("function score() return #(''):rep(1 << 62) end"), "script_error");
  EXPECT_EQ(StatusOf("function score() setmetatable({}, {__gc = function() end}) end"),
            "script_error");
}

TEST(RewardHost, HasNothingOfTheOutsideInAScript) {
  for (const char* name :
       {"io", "os", "debug", "package", "require", "load", "loadstring", "loadfile", "dofile",
        "collectgarbage", "print", "coroutine", "string.dump", "_G.io", "_ENV.os", "arg"}) {
    EXPECT_EQ(
        ScoreOne(std::string("function score() return ") + name + " == nil and 1 or 0 end").score,
        1.0)
        << name;
  }
  EXPECT_EQ(StatusOf("function score() getmetatable('').__index.rep = nil return 1 end"),
            "script_error");
  EXPECT_EQ(ScoreOne("function score(s) return tostring(s) == 'table' and "
                     "('%s'):format(print or s) == 'table' and 1 or 0 end")
                .score,
            1.0);
  EXPECT_EQ(StatusOf("function score(s) return ('%5p'):format(s) end"), "script_error");
}

TEST(RewardHost, TakesOnlyTextAsAScript) {
  EXPECT_EQ(StatusOf("\x1bLua"), "script_error");
  EXPECT_EQ(StatusOf(std::string(70000, ' ')), "script_error");
}

TEST(RewardHost, CarriesNothingFromOneSampleToTheNext) {
  RewardHost host(
      With({Script("n = (n or 0) + 1\n"
                   "string.seen = (string.seen or 0) + 1\n"
                   "function score() local k = math.random(1 << 40) \n"
                   "return {score = n + string.seen, draw = k} end")}));
  const std::vector<SampleInput> samples(5, Sample("a"));
  std::optional<double> draw;
  for (int batch = 0; batch < 2; ++batch) {
    for (const ScoreResult& result : host.ScoreGroup(samples)) {
      EXPECT_EQ(result.score, 2.0);
      if (!draw) draw = result.parts[1].value;
      EXPECT_EQ(result.parts[1].value, draw);  // the same sample draws the same numbers
    }
  }
  EXPECT_EQ(host.spawned(), 1);
}

TEST(RewardHost, KillsAHangingPatternInTimeAndKeepsTheSiblings) {
  // A hook never fires inside a pattern match: only the clock can end it.
  RewardHost host(With({Script("function score(s)\n"
                               "  if s.completion == 'hang' then\n"
                               "    return #(('a'):rep(3000):match('a*a*a*a*a*a*b') or '')\n"
                               "  end\n"
                               "  return tonumber(s.completion)\n"
                               "end")},
                       0.3));
  const std::vector<SampleInput> samples = {Sample("1"), Sample("hang"), Sample("3"),
                                            Sample("hang"), Sample("5")};
  const auto begin = std::chrono::steady_clock::now();
  const auto results = host.ScoreGroup(samples);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_EQ(results[0].score, 1.0);
  EXPECT_EQ(results[1].status, "timeout");
  EXPECT_EQ(results[1].parts[0].message, "no answer in 0.3 s");
  EXPECT_GE(results[1].parts[0].micros, 299000);
  EXPECT_LT(results[1].parts[0].micros, 550000);
  EXPECT_EQ(results[2].score, 3.0);
  EXPECT_EQ(results[3].status, "timeout");
  EXPECT_FALSE(results[3].score);
  EXPECT_EQ(results[4].score, 5.0);
  EXPECT_LT(seconds, 2 * 0.55 + 0.4);
  EXPECT_EQ(host.spawned(), 3);
}

TEST(RewardHost, SurvivesASandboxThatDies) {
  RewardHost host(With({Script("function score(s) return 1 end")}));
  const std::vector<SampleInput> samples = {Sample("1")};
  EXPECT_EQ(host.ScoreGroup(samples)[0].status, "ok");
  KillOne(OnlyChild(OnlyChild(getpid())));  // ours -> zygote -> sandbox
  usleep(50000);
  EXPECT_EQ(host.ScoreGroup(samples)[0].status, "ok");  // an idle death costs nobody
  EXPECT_EQ(host.spawned(), 2);
}

TEST(RewardHost, CallsASandboxThatDiesAtWorkCrashed) {
  RewardHost host(With({Script("function score(s)\n"
                               "  if s.completion ~= 'hang' then return 1 end\n"
                               "  return #(('a'):rep(3000):match('a*a*a*a*a*a*b') or '')\n"
                               "end")},
                       20));
  const std::vector<SampleInput> samples = {Sample("1"), Sample("hang"), Sample("3")};
  host.ScoreGroup(std::vector{Sample("1")});
  const pid_t sandbox = OnlyChild(OnlyChild(getpid()));
  std::thread killer([&] {
    usleep(200000);
    kill(sandbox, SIGSEGV);
  });
  const auto results = host.ScoreGroup(samples);
  killer.join();
  EXPECT_EQ(results[0].status, "ok");
  EXPECT_EQ(results[1].status, "crashed");
  EXPECT_EQ(results[1].parts[0].message, "killed by signal 11 (Segmentation fault)");
  EXPECT_EQ(results[2].status, "ok");
}

TEST(RewardHost, AddsTheWeightedScoresOfItsFunctions) {
  FunctionSpec rule;
  rule.name = rule.rule = "accuracy";
  rule.weight = 2.0;
  RewardHost host(
      With({Script("function score(s) if s.completion == 'skip 42' then return nil end\n"
                   "if s.completion == 'bad' then error('no') end\n"
                   "return 0.5 end",
                   "half", 3.0),
            rule}));
  const std::vector<SampleInput> samples = {Sample("it is 42"), Sample("skip 42"), Sample("bad"),
                                            Sample("7")};
  const auto results = host.ScoreGroup(samples);
  EXPECT_EQ(results[0].score, 3.5);
  EXPECT_EQ(results[1].score, 2.0);
  EXPECT_EQ(results[1].status, "ok");
  EXPECT_EQ(results[1].parts[0].status, "not_applicable");
  EXPECT_FALSE(results[2].score);  // half a sum is no score
  EXPECT_EQ(results[2].status, "script_error");
  EXPECT_EQ(results[2].parts[1].status, "ok");
  EXPECT_EQ(results[3].score, 1.5);
  EXPECT_EQ(results[3].parts[1].script_sha256, "");
}

TEST(RewardHost, IsNotApplicableWhenNoFunctionIs) {
  FunctionSpec rule;
  rule.name = rule.rule = "accuracy";
  RewardHost host(With({rule}));
  SampleInput sample = Sample("42");
  sample.answer.reset();
  const ScoreResult result = host.ScoreGroup(std::vector{sample})[0];
  EXPECT_FALSE(result.score);
  EXPECT_EQ(result.status, "not_applicable");
}

TEST(RewardHost, TreatsACompletionAsBytes) {
  const std::string hostile = std::string("\0\xff\x1bLua ]]--", 12) + std::string(1 << 20, 'x');
  const ScoreResult result = ScoreOne("function score(s) return #s.completion end", hostile);
  EXPECT_EQ(result.score, static_cast<double>(hostile.size()));
}

TEST(RewardHost, RefusesOptionsThatCannotWork) {
  EXPECT_THROW(RewardHost(With({})), UserError);
  EXPECT_THROW(RewardHost(With({Script("x"), Script("y")})), UserError);
  FunctionSpec rule;
  rule.name = rule.rule = "accurcy";
  EXPECT_THROW(RewardHost(With({rule})), UserError);
  EXPECT_THROW(RewardHost(With({Script("x")}, 0)), UserError);
  HostOptions options = With({Script("x")});
  options.zygote_argv = {"/no/such/program"};
  EXPECT_THROW(RewardHost(std::move(options)), MachineError);
}

TEST(RewardHost, ReportsAZygoteThatIsNone) {
  HostOptions options = With({Script("function score() return 1 end")});
  options.zygote_argv = {"/bin/true"};
  RewardHost host(std::move(options));
  EXPECT_THROW(host.ScoreGroup(std::vector{Sample("1")}), MachineError);
}

TEST(RewardHost, ForcesTheWholeIsolationWhereTheKernelHasIt) {
  RewardHost host(With({Script("function score() return 1 end")}));
  host.ScoreGroup(std::vector{Sample("1")});
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_EQ(host.missing_isolation(), "");
#endif
}

TEST(CheckScript, FindsAMistakeBeforeARun) {
  const std::string path = testing::TempDir() + "temper_check.lua";
  const auto refusal = [&](const std::string& text) -> std::string {
    std::ofstream(path, std::ios::trunc) << text;
    try {
      CheckScript(path);
      return "";
    } catch (const UserError& error) {
      return std::string(error.what()).substr(path.size());
    }
  };
  EXPECT_EQ(refusal("function score(s) return 1 end"), "");
  EXPECT_EQ(refusal("function score(s)\n  return 1 +\nend"), ":3: unexpected symbol near 'end'");
  EXPECT_EQ(refusal("local x = nil\nx.y = 1"), ":2: attempt to index a nil value (local 'x')");
  EXPECT_EQ(refusal("x = 1"), ": the script defines no function score(sample)");
  std::remove(path.c_str());
  EXPECT_THROW(CheckScript(path), UserError);
  EXPECT_THROW(ParseRewardArgument("rule:nothing"), UserError);
  EXPECT_EQ(ParseRewardArgument("rule:accuracy").name, "accuracy");
}

}  // namespace
}  // namespace temper::reward
