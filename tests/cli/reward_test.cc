// The workshop's commands as a shell runs them: exit codes, JSON, a backtest over a small database.
#include <chrono>
#include <thread>

#include "cli/eval_formats.h"
#include "configs/error.h"
#include "store/trajectories.h"
#include "tests/cli/programs.h"

namespace temper::cli {
namespace {

using RewardCommands = ProgramTest;

constexpr char kScript[] =
    "function score(s)\n"
    "  if s.completion == 'bad' then error('no') end\n"
    "  return {score = #s.completion, half = #s.completion / 2}\n"
    "end\n";

TEST_F(RewardCommands, TestSaysEachCaseAndTheTotal) {
  const std::string script = Write("x.lua", kScript);
  const std::string cases =
      Write("c.jsonl",
            "{\"name\":\"two\",\"completion\":\"ab\",\"expect\":{\"score\":2,\"half\":1}}\n"
            "{\"name\":\"err\",\"completion\":\"bad\",\"expect\":{\"status\":\"script_error\"}}\n");
  Ran ran = Temper({"reward", "test", script, "--cases", cases, "--json"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  auto lines = ran.Lines();
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0]["name"], "two");
  EXPECT_EQ(lines[0]["ok"], true);
  EXPECT_EQ(lines[0]["score"], 2.0);
  EXPECT_EQ(lines[0]["parts"], Json({{"half", 1.0}}));
  EXPECT_EQ(lines[1]["status"], "script_error");
  EXPECT_EQ(lines[1]["line"], 2);
  EXPECT_EQ(lines[1]["message"], "no");
  EXPECT_EQ(lines[2], Json({{"passed", 2}, {"failed", 0}}));
  Write("c.jsonl", "{\"completion\":\"ab\",\"expect\":{\"score\":3}}\n");
  EXPECT_EQ(Temper({"reward", "test", script, "--cases", cases}).code, 1);
  Write("c.jsonl", "\n{\"completion\":\"ab\",\"expekt\":{\"score\":3}}\n");
  ran = Temper({"reward", "test", script, "--cases", cases});
  EXPECT_EQ(ran.code, 2);
  EXPECT_NE(ran.err.find("c.jsonl:2: unknown field \"expekt\""), std::string::npos) << ran.err;
  EXPECT_EQ(Temper({"reward", "test", script}).code, 2);  // no cases at all
  EXPECT_EQ(Temper({"reward", "test", Path("none.lua")}).code, 2);
}

TEST_F(RewardCommands, LintEndsWithOneForAFinding) {
  EXPECT_EQ(
      Temper({"reward", "lint", Write("x.lua", "function score(s) return #s.completion end")}).code,
      0);
  const Ran ran =
      Temper({"reward", "lint", Write("x.lua", kScript + std::string("y = os.time\n")), "--json"});
  EXPECT_EQ(ran.code, 1);
  EXPECT_EQ(ran.Lines().at(0)["kind"], "forbidden");
  EXPECT_EQ(ran.Lines().at(0)["line"], 5);
  EXPECT_EQ(ran.Lines().back()["problems"], ran.Lines().size() - 1);
  EXPECT_EQ(Temper({"reward", "lint", Write("x.lua", "function score(")}).code, 1);
}

TEST_F(RewardCommands, TryShowsWhatWasPrintedAndWhereTheTimeWent) {
  const std::string script =
      Write("x.lua",
            "function score(s)\n  print('len', #s.completion, s.row.k)\n"
            "  local n = 0\n  for i = 1, 100 do n = n + 1 end\n  return n\nend\n");
  Ran ran = Temper({"reward", "try", script, "--row", "{\"k\":7}", "--json"}, "abc\n");
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json line = ran.Lines().at(0);
  EXPECT_EQ(line["printed"], "len\t3\t7\n");
  EXPECT_EQ(line["score"], 100.0);
  std::int64_t loop = 0;
  for (const Json& count : line["lines"]) {
    if (count["line"] == 4) loop = count["instructions"];
  }
  EXPECT_GE(loop, 100);
  ran = Temper({"reward", "try", script, "--completion", "abc"});
  EXPECT_NE(ran.out.find("for i = 1, 100 do"), std::string::npos) << ran.out;
  EXPECT_EQ(Temper({"reward", "try", script, "--row", "[]"}, "").code, 2);
}

TEST_F(RewardCommands, WatchTestsAgainAfterEachChange) {
  const std::string one = "function score(s) return #s.completion end\ncases = {";
  const std::string two = "{completion = 'ab', expect = {score = 2}}";
  const std::string script = Write("x.lua", one + two + "}");
  std::thread author([&] {
    const auto wait = [] { std::this_thread::sleep_for(std::chrono::milliseconds(700)); };
    wait();
    Write("x.lua", "function score(s) retur");  // as it is while somebody types
    wait();
    Write("x.lua", one + two + ", {completion = 'a', expect = {score = 2}}}");
  });
  const Ran ran = Temper({"reward", "watch", script}, "", "timeout 2.5");
  author.join();
  EXPECT_NE(ran.out.find("1 passed, 0 failed\n"), std::string::npos) << ran.out;
  EXPECT_NE(ran.out.find("1 passed, 1 failed\n"), std::string::npos) << ran.out;
  EXPECT_NE(ran.err.find("x.lua:1: "), std::string::npos) << ran.err;
  EXPECT_EQ(Temper({"reward", "watch", Path("none.lua")}, "", "timeout 5").code, 2);
}

TEST_F(RewardCommands, BacktestComparesWithTheStoredScores) {
  std::filesystem::create_directories(Path("run"));
  {
    auto db = store::Trajectories::Create(
        Path("run/trajectories.db"),
        {"tiny", "0", "canon-1", "{\"data\":{\"answer_column\":\"wanted\"}}", 1});
    for (std::uint64_t grp = 0; grp < 3; ++grp) {
      store::GroupRow group;
      group.grp = grp;
      group.prompt_json = "\"<p>\"";
      group.row_json = R"({"prompt":"<p>","answer":"41","wanted":"42"})";
      group.granted_step = 7;
      group.prompt_ids = {1};
      db.PutGroup(group);
      for (std::uint32_t sample = 0; sample < 4; ++sample) {
        store::RolloutRow row;
        row.grp = grp;
        row.sample = sample;
        row.state = "received";
        row.text = std::string(sample + 1, 'a');
        row.ids = {1, 2};
        row.logp = {0, 0};
        row.loss_mask = {1, 1};
        row.finish_reason = "stop";
        db.PutRollout(row);
        db.PutScore(grp, sample, 0, grp == 0 ? -double(sample) : double(sample + 1), "ok", {});
      }
    }
  }
  const std::string script =
      Write("x.lua",
            "function score(s) assert(s.answer == '42' and s.step == 7) return #s.completion end");
  const Ran one = Temper({"reward", "try", script, "--run", Path("run"), "--rollout", "g1.s2@v0"});
  EXPECT_EQ(one.out.substr(0, one.out.find('\n')), "score 3.0") << one.err;
  EXPECT_EQ(Temper({"reward", "try", script, "--run", Path("run"), "--rollout", "g9.s0"}).code, 2);
  const Ran ran = Temper(
      {"reward", "backtest", script, "--run", Path("run"), "--out", Path("b.html"), "--json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json summary = ran.Lines().at(0);
  EXPECT_EQ(summary["rollouts"], 12);
  EXPECT_EQ(summary["groups"], 3);
  EXPECT_EQ(summary["pairs"], 18);
  EXPECT_EQ(summary["pairs_flipped"], 6);
  EXPECT_EQ(summary["groups_flipped"], 1);
  EXPECT_EQ(summary["changed"], 4);
  EXPECT_EQ(summary["advantage_sign_changed"], 4);
  EXPECT_EQ(summary["mean_after"], 2.5);
  const std::string page = Read(Path("b.html"));
  EXPECT_NE(page.find("g0.s3@v0"), std::string::npos);
  EXPECT_EQ(page.find("<p>\""), std::string::npos);  // escaped
  const Ran same = Temper({"reward", "backtest", script, "--run", Path("run"), "--against", script,
                           "--out", Path("b.html"), "--json"});
  EXPECT_EQ(same.Lines().at(0)["changed"], 0);
  EXPECT_EQ(Temper({"reward", "backtest", script, "--run", Path("none")}).code, 2);
}

TEST_F(RewardCommands, PromptsWritesTheRowsOfATask) {
  const std::string script = std::string(TEMPER_SOURCE_DIR) + "/reward/library/sorting.lua";
  const Ran ran = Temper({"reward", "prompts", script, "--n", "7", "--seed", "3"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.Lines().size(), 7u);
  EXPECT_EQ(Temper({"reward", "prompts", script, "--split", "test"}).code, 2);
}

TEST_F(RewardCommands, EvalReadsPublishedRows) {
  const auto rows = [&](const char* format, const std::string& text, int shots = 0) {
    return ReadFormatRows({format, Write("shots.jsonl", text), shots}, Write("rows.jsonl", text));
  };
  auto read = rows("gsm8k", R"({"question":"6*7?","answer":"6*7=<<6*7=42>>42\n#### 42"})", 1);
  EXPECT_EQ(read[0].prompt,
            "Question: 6*7?\nAnswer: 6*7=<<6*7=42>>42\n#### 42\n\nQuestion: 6*7?\nAnswer:");
  read = rows("math", R"({"problem":"p","solution":"so $\\boxed{\\frac{1}{2}}$","level":"1"})");
  EXPECT_EQ(read[0].answer, "\\frac{1}{2}");
  read = rows("mmlu", R"({"question":"q","choices":["a","b","c","d"],"answer":2,"subject":"x"})");
  EXPECT_EQ(read[0].prompt, "q\nA. a\nB. b\nC. c\nD. d\nAnswer:");
  EXPECT_EQ(read[0].answer, "C");
  read = rows("ceval", R"({"question":"q","A":"1","B":"2","C":"3","D":"4","answer":"D"})");
  EXPECT_EQ(read[0].answer, "D");
  EXPECT_THROW(rows("mmlu", R"({"question":"q","choices":["a","b"],"answer":2})"), UserError);
  EXPECT_THROW(rows("gsm8k", R"({"question":"q","answer":"42"})"), UserError);
  EXPECT_THROW(FormatReward("humaneval"), UserError);
  EXPECT_THROW(FormatReward("gsm9k"), UserError);
  const Ran ran =
      Temper({"eval", "--model", Model(), "--data", Path("rows.jsonl"), "--format", "gsm8k"});
  EXPECT_EQ(ran.code, 2);  // the last rows written have another form
  Write("rows.jsonl", R"({"question":"6*7?","answer":"#### 42"})");
  const Ran good = Temper({"eval", "--model", Path("model"), "--data", Path("rows.jsonl"),
                           "--format", "gsm8k", "--max-new-tokens", "4"});
  ASSERT_EQ(good.code, 0) << good.err;
  EXPECT_EQ(good.Lines().back()["extraction"], "rule:gsm8k {\"method\":\"flexible\"}");
  EXPECT_EQ(good.Lines().back()["shots"], 0);
}

}  // namespace
}  // namespace temper::cli
