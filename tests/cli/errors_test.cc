// Wrong input gives one line that says where, what and the rule, and the exit code of who must act.
#include <algorithm>

#include "tests/cli/programs.h"

namespace temper::cli {
namespace {

using ErrorsTest = ProgramTest;

TEST_F(ErrorsTest, WrongUseIsOneLineAndExit2) {
  const std::pair<std::vector<std::string>, std::string> cases[] = {
      {{"genrate"}, "temper: \"genrate\" is not a command; temper --help lists them\n"},
      {{"probe", "x"}, "temper probe: \"x\" is not a command; temper probe --help lists them\n"},
      {{"generate", "--prompt", "x"},
       "temper generate: --model is missing: model folder in Hugging Face layout; see temper "
       "generate "
       "--help\n"},
      {{"generate", "--model", "m"},
       "temper generate: give either --prompt or --prompts; see temper generate --help\n"},
      {{"generate", "--model", "m", "--prompt", "x", "--top-p", "0"},
       "temper generate: --top-p: 0 must be in (0, 1]; see temper generate --help\n"},
      {{"generate", "--model", "m", "--prompt", "x", "--stop", ""},
       "temper generate: --stop: the text is empty; every sample would end at once; see temper "
       "generate --help\n"},
      {{"generate", "--model", "/nowhere", "--prompt", "x"},
       "temper: /nowhere/config.json: cannot be opened: No such file or directory\n"},
      {{"probe", "sample", "--seed", "-1"},
       "temper probe sample: --seed: -1 must be >= 0; see temper probe sample --help\n"},
      {{"quickstart", "--task", "chess"},
       "temper: --task: \"chess\" must be one of sums, reverse-text\n"},
      {{"runs", "list", "/nowhere"}, ""},
  };
  for (const auto& [args, message] : cases) {
    const Ran ran = Temper(args);
    EXPECT_EQ(ran.code, 2) << args[0];
    EXPECT_EQ(ran.out, "") << args[0];
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
    EXPECT_TRUE(message.empty() || ran.err == message) << ran.err << message;
  }
}

TEST_F(ErrorsTest, ADeviceThatIsNotThereIsTheMachinesLack) {
  const std::vector<std::string> generate = {"generate", "--model", "m", "--prompt", "x", "--device"};
  for (const auto& [device, code] : {std::pair("cuda:1023", 3), std::pair("gpu", 2)}) {
    std::vector<std::string> args = generate;
    args.push_back(device);
    const Ran ran = Temper(args);
    EXPECT_EQ(ran.code, code) << ran.err;
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
    EXPECT_NE(ran.err.find(device), std::string::npos) << ran.err;
  }
  const Ran ran = Temper({"actor", "--connect", "ipc:///nowhere", "--device", "cuda:1023"});
  EXPECT_EQ(ran.code, 3) << ran.err;
}

TEST_F(ErrorsTest, ABrokenConfigStartsNothing) {
  const std::string config = Write("c.json", R"({"model": "m", "output_dir": "run", "data":
      {"train": "d.jsonl"}, "rewards": [{"rule": "math"}], "grpo": {"epsilonn": 0.2}})");
  const Ran ran = Temper({"grpo", config});
  EXPECT_EQ(ran.code, 2);
  EXPECT_EQ(ran.err, "temper: " + config +
                         ": grpo.epsilonn: unknown setting; did you mean \"grpo.epsilon\"?\n");
  EXPECT_FALSE(std::filesystem::exists(Path("run")));
}

TEST_F(ErrorsTest, ARewardScriptThatCannotScoreStartsNothing) {
  const std::string config = Write("c.json", R"({"model": "m", "output_dir": "run",
      "data": {"train": "d.jsonl"}, "rewards": [{"script": "r.lua"}]})");
  const std::pair<std::string, std::string> scripts[] = {
      {"function scores(s) return 1 end", "r.lua: the script defines no function score(sample)"},
      {"\x1bLua", "r.lua"},
      {std::string(70000, ' '), "at most 65536 bytes"},
      {"error('no')", "r.lua:1: no"}};
  for (const auto& [text, why] : scripts) {
    Write("r.lua", text);
    const Ran ran = Temper({"grpo", config});
    EXPECT_EQ(ran.code, 2);
    EXPECT_NE(ran.err.find(why), std::string::npos) << ran.err;
    EXPECT_FALSE(std::filesystem::exists(Path("run")));
  }
}

TEST_F(ErrorsTest, AnExistingOutputFolderIsNotTouched) {
  std::filesystem::create_directory(Path("run"));
  const std::string config = Write("c.json", R"({"model": "m", "output_dir": "run",
      "data": {"train": "d.jsonl"}, "rewards": [{"rule": "math"}]})");
  const Ran ran = Temper({"grpo", config});
  EXPECT_EQ(ran.code, 2);
  EXPECT_NE(ran.err.find("output_dir exists"), std::string::npos) << ran.err;
  EXPECT_TRUE(std::filesystem::is_empty(Path("run")));
}

TEST_F(ErrorsTest, AnUnknownIsaIsTheUsersMistake) {
  const Ran ran = Temper({"probe", "sample"}, "", "TEMPER_ISA=mmx");
  EXPECT_EQ(ran.code, 2);
  EXPECT_NE(ran.err.find("TEMPER_ISA"), std::string::npos) << ran.err;
}

TEST_F(ErrorsTest, AFullDiskBehindStdoutIsTheMachinesFault) {
  const std::string command =
      Quoted(TEMPER_PROGRAM) + " probe sample --positions 10 >/dev/full 2>" + Quoted(Path("err"));
  const int status = std::system(command.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 3);
  EXPECT_NE(Read(Path("err")).find("stdout: No space left"), std::string::npos);
}

TEST_F(ErrorsTest, EveryCommandHasHelp) {
  const Ran all = Temper({"--help"});
  EXPECT_EQ(all.code, 0);
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"quickstart"},
                                             {"init"},
                                             {"grpo"},
                                             {"generate"},
                                             {"eval"},
                                             {"doctor"},
                                             {"actor"},
                                             {"reward-worker"},
                                             {"runs", "list"},
                                             {"runs", "show"},
                                             {"runs", "query"},
                                             {"probe", "logits"},
                                             {"probe", "logprobs"},
                                             {"probe", "loss"},
                                             {"probe", "sample"},
                                             {"probe", "template"},
                                             {"probe", "tokens"}}) {
    EXPECT_NE(all.out.find(command[0]), std::string::npos) << command[0];
    std::vector<std::string> args = command;
    args.push_back("--help");
    const Ran ran = Temper(args);
    EXPECT_EQ(ran.code, 0) << command[0];
    EXPECT_EQ(ran.out.rfind("usage: temper " + command[0], 0), 0u) << ran.out;
  }
  EXPECT_NE(Temper({"grpo", "--help-keys"}).out.find("grpo.epsilon = 0.2"), std::string::npos);
}

}  // namespace
}  // namespace temper::cli
