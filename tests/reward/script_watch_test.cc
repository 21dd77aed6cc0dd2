// Reward scripts that change while a run goes on.
#include "reward/script_watch.h"

#include "tests/engine/temp_dir.h"
#include "tests/reward/fixtures.h"

namespace temper::reward {
namespace {

const std::string kOne = "function score(s) return 1 end";
const std::string kTwo =
    "function score(s) return 2 end\ncases = {{completion = 'x', expect = {score = 2}}}";

class ScriptWatchTest : public testing::Test {
 protected:
  ScriptWatchTest() : path_(folder_.Write("f.lua", kOne)) {}

  ScriptWatchOptions Options() {
    ScriptWatchOptions options;
    options.rewards.emplace_back().script = path_;
    options.reward.timeout_s = 10;
    options.accept = [this](const ScriptTexts& texts) { accepted_.push_back(texts[0].second); };
    options.note = [this](const std::string& line) { notes_.push_back(line); };
    return options;
  }
  /// Writes a text, looks twice, and gives what was said.
  std::string After(ScriptWatch* watch, const std::string& text) {
    notes_.clear();
    folder_.Write("f.lua", text);
    watch->Look();
    watch->Look();
    EXPECT_LE(notes_.size(), 1u) << "said again: " << text;
    return notes_.empty() ? "" : notes_[0];
  }

  const TempDir folder_;
  const std::string path_;
  std::vector<std::string> accepted_, notes_;
};

TEST_F(ScriptWatchTest, AChangeThatHoldsIsTakenOnce) {
  ScriptWatch watch(Options(), {{path_, kOne}});
  EXPECT_EQ(After(&watch, kOne), "");
  const std::string said = After(&watch, kTwo);
  EXPECT_EQ(accepted_, std::vector<std::string>{kTwo});
  EXPECT_NE(said.find(Sha256Hex(kOne).substr(0, 12) + " to " + Sha256Hex(kTwo).substr(0, 12)),
            std::string::npos)
      << said;
  After(&watch, kOne);
  EXPECT_EQ(accepted_, (std::vector<std::string>{kTwo, kOne}));
}

TEST_F(ScriptWatchTest, WhatDoesNotHoldIsNamedAndTheOldOneGoesOn) {
  ScriptWatch watch(Options(), {{path_, kOne}});
  const std::vector<std::pair<std::string, std::string>> broken = {
      {"function score(s) retrun 1 end", "f.lua:1: "},
      {"function scor(s) return 1 end", "defines no function score"},
      {"error('at load')", "at load"},
      {"while true do end", "instructions"},
      {kTwo + "\ncases[1].expect.score = 3", "f.lua: case 1: score is 2.0, expected 3"},
      {kTwo + "\ncases[1].expct = 3", "unknown field \"expct\""},
      {"\x1bLua", "f.lua"},
      {kOne + std::string(70000, ' '), "at most 65536 bytes"},
      {"", "f.lua:1: the script is empty"},
  };
  for (const auto& [text, why] : broken) {
    const std::string said = After(&watch, text);
    EXPECT_NE(said.find(why), std::string::npos) << said;
    EXPECT_NE(said.find(Sha256Hex(kOne).substr(0, 12) + " goes on scoring"), std::string::npos)
        << said;
  }
  std::filesystem::remove(path_);
  watch.Look();
  EXPECT_NE(notes_.back().find("No such file"), std::string::npos) << notes_.back();
  EXPECT_TRUE(accepted_.empty());
  EXPECT_NE(After(&watch, kOne).find("is again what scores"), std::string::npos);
  After(&watch, kTwo);
  EXPECT_EQ(accepted_.size(), 1u);
}

TEST_F(ScriptWatchTest, TheThreadSeesAChange) {
  std::atomic<bool> taken{false};
  ScriptWatchOptions options = Options();
  options.period_s = 0.01;
  options.accept = [&](const ScriptTexts&) { taken = true; };
  options.note = [](const std::string&) {};
  ScriptWatch watch(std::move(options), {{path_, kOne}});
  watch.Start();
  folder_.Write("f.lua", kTwo);
  for (int i = 0; i < 6000 && !taken; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(taken);
}

TEST(RewardHostTest, PartsNameTheScriptThatScoredThem) {
  FunctionSpec spec = Script(kOne);
  RewardHost host(With({spec, Script("function score(s) return 10 end", "g")}));
  const std::vector<SampleInput> samples = {Sample("x")};
  EXPECT_EQ(host.ScoreGroup(samples)[0].score, 11.0);
  host.UseScripts({{"f.lua", kTwo}, {"other.lua", "no script of ours"}});
  const ScoreResult result = host.ScoreGroup(samples)[0];
  EXPECT_EQ(result.score, 12.0);
  EXPECT_EQ(result.parts[0].script_sha256, Sha256Hex(kTwo));
  EXPECT_EQ(result.parts[1].script_sha256, Sha256Hex("function score(s) return 10 end"));
}

}  // namespace
}  // namespace temper::reward
