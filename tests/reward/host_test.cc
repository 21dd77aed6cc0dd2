#include "reward/host.h"

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

#include "configs/error.h"
#include "reward/function.h"
#include "tests/reward/fixtures.h"

namespace temper::reward {
namespace {

/// The one child of a process, from the kernel's list.
pid_t OnlyChild(pid_t pid) {
  const std::string id = std::to_string(pid);
  std::ifstream file("/proc/" + id + "/task/" + id + "/children");
  pid_t child = 0;
  file >> child;
  return child;
}

/// The letter of /proc/PID/stat and the processor time it has used; 'X' when there is no such
/// process.
std::pair<char, double> StateOf(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text, word;
  std::getline(file, text);
  if (text.empty()) return {'X', 0};
  std::istringstream fields(text.substr(text.rfind(')') + 1));
  char state = 0;
  fields >> state;
  for (int i = 0; i < 10; ++i) fields >> word;  // to utime
  double ticks = 0;
  fields >> ticks;
  return {state, ticks / double(sysconf(_SC_CLK_TCK))};
}

/// Whether a process has ended and closed what it had open. TSan gives each process a thread of its
/// own: the leader may be a zombie while that one still holds the sockets.
bool HasEnded(pid_t pid) {
  const char state = StateOf(pid).first;
  if (state == 'X') return true;
  std::error_code gone;
  const std::filesystem::directory_iterator threads("/proc/" + std::to_string(pid) + "/task", gone);
  return state == 'Z' && std::distance(begin(threads), end(threads)) <= 1;
}

void KillOne(pid_t pid) {
  ASSERT_GT(pid, 1);
  ASSERT_EQ(kill(pid, SIGKILL), 0);
  while (!HasEnded(pid)) usleep(1000);
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

TEST(RewardHost, CarriesNothingFromOneSampleToTheNext) {
  RewardHost host(
      With({Script("n = (n or 0) + 1\n"
                   "function score() local k = math.random(1 << 40) \n"
                   "return {score = n, draw = k} end")}));
  const std::vector<SampleInput> samples(5, Sample("a"));
  std::optional<double> draw;
  for (int batch = 0; batch < 2; ++batch) {
    for (const ScoreResult& result : host.ScoreGroup(samples)) {
      EXPECT_EQ(result.score, 1.0);
      if (!draw) draw = result.parts[1].value;
      EXPECT_EQ(result.parts[1].value, draw);  // the same sample draws the same numbers
    }
  }
  EXPECT_EQ(host.spawned(), 1);
}

TEST(RewardHost, KillsAHangingScriptInTimeAndKeepsTheSiblings) {
  // Each comparison is one instruction and takes long: only the clock can end it.
  RewardHost host(With({Script("function score(s)\n"
                               "  if s.completion == 'hang' then\n"
                               "    local a, b = ('x'):rep(1 << 22), ('x'):rep(1 << 22)\n"
                               "    while a == b do end\n"
                               "  end\n"
                               "  return tonumber(s.completion)\n"
                               "end")},
                       1.0));
  const std::vector<SampleInput> samples = {Sample("1"), Sample("hang"), Sample("3"),
                                            Sample("hang"), Sample("5")};
  const auto begin = std::chrono::steady_clock::now();
  const auto results = host.ScoreGroup(samples);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_EQ(results[0].score, 1.0);
  EXPECT_EQ(results[1].status, "timeout");
  EXPECT_EQ(results[1].parts[0].message, "no answer in 1 s");
  EXPECT_GE(results[1].parts[0].micros, 999000);
  EXPECT_LT(results[1].parts[0].micros, 1900000);
  EXPECT_EQ(results[2].score, 3.0);
  EXPECT_EQ(results[3].status, "timeout");
  EXPECT_FALSE(results[3].score);
  EXPECT_EQ(results[4].score, 5.0);
  EXPECT_LT(seconds, 2 * 1.9 + 3 * 1.0);
  EXPECT_EQ(host.spawned(), 3);
}

TEST(RewardHost, SurvivesASandboxThatDies) {
  RewardHost host(With({Script("function score(s) return 1 end")}));
  const std::vector<SampleInput> samples = {Sample("1")};
  EXPECT_EQ(host.ScoreGroup(samples)[0].status, "ok");
  KillOne(OnlyChild(OnlyChild(getpid())));              // ours -> zygote -> sandbox
  EXPECT_EQ(host.ScoreGroup(samples)[0].status, "ok");  // an idle death costs nobody
  EXPECT_EQ(host.spawned(), 2);
}

TEST(RewardHost, CallsASandboxThatDiesAtWorkCrashed) {
  RewardHost host(With({Script("function score(s)\n"
                               "  if s.completion ~= 'hang' then return 1 end\n"
                               "  local a, b = ('x'):rep(1 << 22), ('x'):rep(1 << 22)\n"
                               "  while a == b do end\n"
                               "end")},
                       20));
  const std::vector<SampleInput> samples = {Sample("1"), Sample("hang"), Sample("3")};
  host.ScoreGroup(std::vector{Sample("1")});
  const pid_t sandbox = OnlyChild(OnlyChild(getpid()));
  std::thread killer([&] {
    // Only the one that hangs takes so much of a processor.
    const double before = StateOf(sandbox).second;
    while (StateOf(sandbox).second < before + 0.3) usleep(1000);
    kill(sandbox, SIGSEGV);
  });
  const auto results = host.ScoreGroup(samples);
  killer.join();
  EXPECT_EQ(results[0].status, "ok");
  EXPECT_EQ(results[1].status, "crashed");
#if defined(__SANITIZE_ADDRESS__)
  EXPECT_EQ(results[1].parts[0].message, "exited with code 1");  // after its report
#elif defined(__SANITIZE_THREAD__)
  EXPECT_NE(results[1].parts[0].message, "");  // its report dies of what a sandbox may not do
#else
  EXPECT_EQ(results[1].parts[0].message, "killed by signal 11 (Segmentation fault)");
#endif
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
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  EXPECT_EQ(host.missing_isolation(), "RLIMIT_AS, seccomp");
#else
  EXPECT_EQ(host.missing_isolation(), "");
#endif
}

TEST(CheckScripts, FindsAMistakeBeforeARun) {
  const std::string path = testing::TempDir() + "temper_check.lua";
  std::vector<configs::RewardFunction> entries(1);
  entries[0].script = path;
  const auto refusal = [&](const std::string& text) -> std::string {
    std::ofstream(path, std::ios::trunc) << text;
    try {
      CheckScripts(entries, {});
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
  EXPECT_THROW(CheckScripts(entries, {}), UserError);
  EXPECT_THROW(ParseRewardArgument("rule:nothing"), UserError);
  EXPECT_EQ(ParseRewardArgument("rule:accuracy").name, "accuracy");
}

}  // namespace
}  // namespace temper::reward
