// Several learner processes a run: the same training as one, and what is said when one is lost.
#include "tests/cli/training.h"

namespace temper::cli {
namespace {

class RankTraining : public TrainingTest {
 protected:
  RankTraining() {
    sft_ = Write("sft.json", R"({"output_dir": "tuned", "model": "model",
        "data": {"train": "sft.jsonl", "eval": "sft.jsonl"},
        "sft": {"max_steps": 6, "save_steps": 2, "tokens_per_step": 128, "eval_steps": 6,
                "learning_rate": 0.001}})");
  }

  static std::vector<std::string> WithRanks(std::vector<std::string> args, int ranks,
                                            const std::vector<std::string>& sets) {
    std::vector<std::string> all = sets;
    all.push_back("learner.ranks=" + std::to_string(ranks));
    all.push_back("threads=1");
    for (const std::string& arg : Sets(all)) args.push_back(arg);
    return args;
  }

  /// The process of a rank, as the supervisor started it.
  pid_t Rank(int rank) const {
    for (const auto& [pid, command] : ChildrenOf(supervisor_)) {
      const std::string variables = Read("/proc/" + std::to_string(pid) + "/environ");
      if (command.find("temper-learner") != std::string::npos &&
          variables.find(std::string(1, '\0') + "RANK=" + std::to_string(rank)) !=
              std::string::npos)
        return pid;
    }
    return -1;
  }

  /// temper-learner ARGS with these variables, its output in a file.
  Ran Learner(const std::string& variables, const std::string& args) const {
    const std::string program =
        (fs::path(TEMPER_PROGRAM).parent_path() / "temper-learner").string();
    const std::string command = variables + " " + Quoted(program) + " " + args + " >" +
                                Quoted(Path("out")) + " 2>" + Quoted(Path("said"));
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), Read(Path("out")),
            Read(Path("said"))};
  }

  std::string sft_;
};

void ExpectNear(const Json& a, const Json& b, const char* key) {
  const double x = a[key], y = b[key];
  EXPECT_NEAR(x, y, 1e-5 * (1e-3 + std::abs(y))) << key;
}

TEST_F(RankTraining, RanksTrainWhatOneLearnerTrains) {
  std::vector<Json> first;
  for (const int ranks : {1, 2, 4}) {
    SCOPED_TRACE(ranks);
    const std::string run = "run" + std::to_string(ranks);
    const Ran ran = Temper(WithRanks({"grpo", config_}, ranks,
                                     {"output_dir=" + run, "grpo.num_generations=4",
                                      "grpo.groups_per_step=3", "grpo.learning_rate=0.001"}));
    ASSERT_EQ(ran.code, 0) << ran.err;
    const std::vector<Json> lines = ran.Lines();
    ASSERT_EQ(lines.size(), 3u);
    for (const Json& line : lines) EXPECT_EQ(line["mismatch/logp_abs_diff_max"], 0.0) << line;
    EXPECT_EQ(lines[0].contains("timing_s/ranks"), ranks > 1);
    if (first.empty()) first = lines;
    for (const char* key : {"loss", "reward", "entropy", "num_tokens", "moe/max_vio_batch",
                            "completions/mean_length"})
      EXPECT_EQ(lines[0][key], first[0][key]) << key;
    for (const char* key : {"grad_norm", "moe/max_vio_seq"}) ExpectNear(lines[0], first[0], key);
  }
}

TEST_F(RankTraining, SupervisedRanksTrainWhatOneTrains) {
  std::vector<Json> first;
  for (const int ranks : {1, 2, 4}) {
    SCOPED_TRACE(ranks);
    const std::string run = "tuned" + std::to_string(ranks);
    const Ran ran = Temper(WithRanks({"sft", sft_}, ranks, {"output_dir=" + run}));
    ASSERT_EQ(ran.code, 0) << ran.err;
    const std::vector<Json> lines = ran.Lines();
    ASSERT_EQ(lines.size(), 6u);
    if (first.empty()) first = lines;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      EXPECT_EQ(lines[i]["trained_tokens"], first[i]["trained_tokens"]);
      EXPECT_EQ(lines[i]["num_tokens"], first[i]["num_tokens"]);
    }
    for (const char* key : {"loss", "grad_norm", "mean_token_accuracy", "moe/max_vio_batch"})
      ExpectNear(lines[0], first[0], key);
    EXPECT_NEAR(lines[5]["eval_loss"].get<double>(), first[5]["eval_loss"].get<double>(), 1e-3);
  }
}

TEST_F(RankTraining, ARankThatIsKilledIsNamedAndTheRunResumesBitForBit) {
  const std::vector<std::string> sets = {"grpo.max_steps=40", "grpo.save_steps=2",
                                         "grpo.learning_rate=0.001"};
  std::vector<std::string> whole = sets, part = sets;
  whole.push_back("output_dir=whole");
  ASSERT_EQ(Temper(WithRanks({"grpo", config_}, 2, whole)).code, 0);

  Start(WithRanks({"grpo", config_}, 2, part));
  ASSERT_TRUE(Eventually([&] { return Steps() >= 5; })) << Read(Path("err"));
  ASSERT_GT(Rank(1), 0);
  kill(Rank(1), SIGKILL);
  const auto killed = Clock::now();
  EXPECT_EQ(Wait(), 3);
  EXPECT_LT(std::chrono::duration<double>(Clock::now() - killed).count(), 30);
  const std::string said = Read(Path("err"));
  EXPECT_NE(said.find("rank 0 of 2"), std::string::npos) << said;
  EXPECT_NE(said.find("rank 1 is gone"), std::string::npos) << said;
  EXPECT_NE(said.find("rank 1 of the learner was killed by signal 9; continue with --resume"),
            std::string::npos)
      << said;

  const Ran rest = Temper(WithRanks({"grpo", config_, "--resume"}, 2, part));
  ASSERT_EQ(rest.code, 0) << rest.err;
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    EXPECT_EQ(Read(Path("whole/checkpoints/step-000040/") + file),
              Read(Path("run/checkpoints/step-000040/") + file))
        << file;
  }
}

TEST_F(RankTraining, ARankThatHangsIsNamedWithinTheDeadline) {
  Start(WithRanks(
      {"sft", sft_}, 3,
      {"sft.max_steps=100000", "sft.eval_steps=0", "learner.rank_timeout_s=2", "output_dir=run"}));
  ASSERT_TRUE(Eventually([&] { return Steps() >= 2; })) << Read(Path("err"));
  const pid_t hung = Rank(2);
  ASSERT_GT(hung, 0);
  kill(hung, SIGSTOP);
  const auto stopped = Clock::now();
  EXPECT_EQ(Wait(), 3);
  EXPECT_LT(std::chrono::duration<double>(Clock::now() - stopped).count(), 30);
  EXPECT_NE(Read(Path("err")).find("rank 2 is gone"), std::string::npos) << Read(Path("err"));
}

TEST_F(RankTraining, AWrongPlaceAmongTheRanksIsOneLineAndExit2) {
  const std::string args = "sft " + Quoted(sft_);
  const std::pair<const char*, const char*> wrong[] = {
      {"WORLD_SIZE=2 RANK=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=1", "RANK: found \"2\""},
      {"WORLD_SIZE=2 RANK=0 MASTER_PORT=29411", "MASTER_ADDR: is not set"},
      {"WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=1", "RANK: is not set"},
      {"WORLD_SIZE=2 RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=x", "MASTER_PORT: found \"x\""},
      {"WORLD_SIZE=many", "WORLD_SIZE: found \"many\""}};
  for (const auto& [variables, what] : wrong) {
    const Ran ran = Learner(variables, args);
    EXPECT_EQ(ran.code, 2) << variables;
    EXPECT_NE(ran.err.find(what), std::string::npos) << ran.err;
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  }
  const Ran alone = Learner("WORLD_SIZE=1", args + " --set learner.ranks=2");
  EXPECT_EQ(alone.code, 2);
  EXPECT_NE(alone.err.find("learner.ranks: is 2, but WORLD_SIZE is 1"), std::string::npos);
  EXPECT_FALSE(fs::exists(Path("tuned")));
}

TEST_F(RankTraining, AnErrorOfTheUsersIsOneLineWhateverTheRanks) {
  for (const char* set : {"model=nowhere", "data.train=nothing.jsonl", "resume=true"}) {
    const Ran ran = Temper(WithRanks({"grpo", config_}, 3, {set}));
    EXPECT_EQ(ran.code, 2) << set;
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
    EXPECT_FALSE(fs::exists(Path("run")));
  }
}

TEST_F(RankTraining, RanksWithOtherSettingsAreToldWhich) {
  const std::string port = std::to_string(20000 + getpid() % 20000),
                    common = "WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=" + port + " RANK=";
  const std::string program = (fs::path(TEMPER_PROGRAM).parent_path() / "temper-learner").string();
  const std::string background =
      common + "1 " + Quoted(program) + " sft " + Quoted(sft_) + " --set seed=8 >/dev/null 2>&1 &";
  ASSERT_EQ(std::system(background.c_str()), 0);
  const Ran ran = Learner(common + "0", "sft " + Quoted(sft_) + " --set seed=7");
  EXPECT_EQ(ran.code, 2);
  EXPECT_NE(ran.err.find("rank 1: has other settings than rank 0: seed: 7 -> 8"), std::string::npos)
      << ran.err;
  EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  EXPECT_FALSE(fs::exists(Path("tuned")));
}

}  // namespace
}  // namespace temper::cli
