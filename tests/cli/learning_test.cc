// Runs of what changes the learner's forward, loss or weights: through actors, wire, database and
// resume.
#include "tests/cli/programs.h"

namespace temper::cli {
namespace {

namespace fs = std::filesystem;

class LearningTest : public ProgramTest {
 protected:
  LearningTest() {
    Model();
    std::string grpo, sft;
    for (int i = 0; i < 20; ++i) {
      const std::string a = std::to_string(i);
      grpo += R"({"prompt": ")" + a + R"(;", "answer": "e"})" + "\n";
      sft += R"({"prompt": ")" + a + R"(;", "completion": "<)" + a + R"(>"})" + "\n";
    }
    Write("grpo.jsonl", grpo);
    Write("sft.jsonl", sft);
    Write("reward.lua",
          "function score(s) return #s.completion_ids % 3 + s.completion_ids[1] % 2 end");
    config_ = Write("grpo.json", R"({"output_dir": "run", "model": "model", "threads": 2,
        "data": {"train": "grpo.jsonl"}, "rewards": [{"script": "reward.lua"}],
        "grpo": {"max_steps": 4, "groups_per_step": 2, "num_generations": 3, "save_steps": 2,
                 "max_completion_length": 8, "learning_rate": 1e-3}})");
    sft_ = Write("sft.json", R"({"output_dir": "sft", "model": "model", "threads": 2,
        "data": {"train": "sft.jsonl"},
        "sft": {"max_steps": 4, "tokens_per_step": 60, "learning_rate": 1e-2}})");
  }

  /// A run into the folder NAME; its lines of metrics.
  std::vector<Json> Train(const std::string& name, std::vector<std::string> sets,
                          const std::string& job = "grpo") const {
    std::vector<std::string> args = {job, job == "grpo" ? config_ : sft_};
    sets.push_back("output_dir=" + Path(name));
    for (const std::string& set : sets) args.insert(args.end(), {"--set", set});
    const Ran ran = Temper(args);
    EXPECT_EQ(ran.code, 0) << ran.err;
    std::vector<Json> lines;
    std::istringstream in(Read(Path(name + "/metrics.jsonl")));
    for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
    return lines;
  }
  Json One(const std::string& run, const std::string& sql) const {
    const Ran ran = Temper({"runs", "query", Path(run), sql});
    EXPECT_EQ(ran.code, 0) << ran.err;
    return ran.Lines().at(0);
  }
  void ExpectSound(const std::string& run) const {
    const Ran ran = Temper({"runs", "verify", Path(run)});
    EXPECT_EQ(ran.code, 0) << ran.out;
  }
  std::string Weights(const std::string& run) const {
    return Read(Path(run + "/checkpoints/latest/model.safetensors"));
  }

  std::string config_, sft_;
};

TEST_F(LearningTest, ReplayedExpertsAreStoredAndChangeNothingInASynchronousRun) {
  Train("plain", {});
  const std::vector<Json> lines = Train("replayed", {"grpo.routing_replay=rollout"});
  EXPECT_EQ(Weights("plain"), Weights("replayed"));
  for (const Json& line : lines) EXPECT_EQ(line["mismatch/logp_abs_diff_max"], 0.0);
  const Json model = configs::ReadJsonFile(Path("model/config.json"));
  const int layers =
      model["num_hidden_layers"].get<int>() - model["first_k_dense_replace"].get<int>();
  const Json rows =
      One("replayed", "SELECT count(*) AS n, sum(length(experts) = 2 * " +
                          std::to_string(layers * model["num_experts_per_tok"].get<int>()) +
                          " * (length(prompt_ids) / 4 + length(ids) / 4 - 1)) AS fits "
                          "FROM rollout JOIN prompt_group USING (grp)");
  EXPECT_EQ(rows["n"], 24);
  EXPECT_EQ(rows["fits"], 24);
  EXPECT_EQ(One("plain", "SELECT count(experts) AS n FROM rollout")["n"], 0);
  ExpectSound("replayed");
}

TEST_F(LearningTest, ParquetIsWrittenWholeOrRefused) {
  Train("run", {"grpo.max_steps=1"});
  const Ran ran = Temper({"runs", "export", Path("run"), "--out", Path("x.parquet")});
  if (ran.code == 0) {  // a build with Arrow
    const std::string file = Read(Path("x.parquet"));
    EXPECT_EQ(file.substr(0, 4) + file.substr(file.size() - 4), "PAR1PAR1");
  } else {
    EXPECT_EQ(ran.code, 2);
    EXPECT_NE(ran.err.find("this build writes no Parquet"), std::string::npos) << ran.err;
    EXPECT_FALSE(fs::exists(Path("x.parquet")));
  }
}

TEST_F(LearningTest, AsynchronousRunsReplayExpertsAndKeptIds) {
  const std::vector<Json> lines =
      Train("run", {"grpo.routing_replay=rollout", "grpo.max_lag=2", "grpo.max_steps=6",
                    "grpo.top_k=20", "grpo.top_p=0.9", "grpo.truncated_sampling=renormalise"});
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_GT(lines.back()["lag/max"], 0);
  for (const Json& line : lines) {
    if (line.contains("mismatch/logp_abs_diff_max")) {
      EXPECT_EQ(line["mismatch/logp_abs_diff_max"], 0.0);
    }
    EXPECT_TRUE(line["loss"].is_number());
  }
  EXPECT_EQ(
      One("run", "SELECT count(*) AS n FROM rollout WHERE kept IS NULL OR experts IS NULL")["n"],
      0);
  ExpectSound("run");
}

TEST_F(LearningTest, AdaptersTrainResumeAndMerge) {
  const std::vector<std::string> lora = {"lora.r=4", "dtype=fp8"};
  const std::vector<Json> lines = Train("whole", lora);
  for (const Json& line : lines) EXPECT_EQ(line["mismatch/logp_abs_diff_max"], 0.0);
  std::vector<std::string> half = lora, rest = lora;
  half.push_back("grpo.max_steps=2");
  rest.insert(rest.end(), {"resume=true", R"(resume_allow=["grpo.max_steps"])"});
  Train("half", half);
  Train("half", rest);
  EXPECT_EQ(Weights("half"), Weights("whole"));
  ExpectSound("whole");
  // The base, merged with the adapter, is what the run ended with.
  const std::string adapter = Path("whole/checkpoints/latest/adapter");
  Train("plain", {"lora.r=4", "grpo.max_steps=2"});
  const Ran merged =
      Temper({"convert", "--to", "fp32", "--adapter", Path("plain/checkpoints/latest/adapter"),
              Path("model"), Path("merged")});
  ASSERT_EQ(merged.code, 0) << merged.err;
  EXPECT_EQ(Read(Path("merged/model.safetensors")), Weights("plain"));
  // And a run may begin with it.
  Train("again", {"lora.r=4", "lora.adapter=" + adapter, "grpo.max_steps=2"});
  const Ran other = Temper({"grpo", config_, "--set", "lora.r=2", "--set",
                            "lora.adapter=" + adapter, "--set", "output_dir=" + Path("other")});
  EXPECT_EQ(other.code, 2);
  EXPECT_NE(other.err.find("an adapter of r 4"), std::string::npos) << other.err;
  EXPECT_FALSE(fs::exists(Path("other")));
}

TEST_F(LearningTest, BalanceLossesAndAcceptanceAreLogged) {
  const std::vector<Json> lines = Train(
      "run", {"grpo.expert_balance_loss=0.01", "grpo.mtp_loss_scale=0.1", "grpo.max_steps=2"});
  for (const Json& line : lines) {
    EXPECT_GT(line["balance_loss"], 0.0);
    EXPECT_GE(line["mtp/acceptance"], 0.0);
    EXPECT_LE(line["mtp/acceptance"], 1.0);
    EXPECT_EQ(line["mismatch/logp_abs_diff_max"], 0.0);
  }
}

TEST_F(LearningTest, ATeacherJudgesRowsThatAStudentLearnsFrom) {
  const Ran taught = Temper({"teach", "--model", Path("model"), "--data", Path("sft.jsonl"),
                             "--out", Path("taught.jsonl"), "--top-k", "8"});
  ASSERT_EQ(taught.code, 0) << taught.err;
  EXPECT_EQ(taught.Lines().at(0)["rows"], 20);
  // Its own student has nothing to learn but what lies past the eight ids.
  const std::vector<Json> lines =
      Train("student", {"data.train=" + Path("taught.jsonl"), "sft.learning_rate=1e-6"}, "sft");
  const std::vector<Json> plain = Train("plain", {"sft.learning_rate=1e-6"}, "sft");
  EXPECT_EQ(lines[0]["trained_tokens"], plain[0]["trained_tokens"]);
  EXPECT_GE(lines[0]["distillation_kl"], 0.0);
  EXPECT_LT(lines[0]["distillation_kl"], plain[0]["loss"]);
  const Ran again = Temper({"teach", "--model", Path("model"), "--data", Path("sft.jsonl"), "--out",
                            Path("taught.jsonl")});
  EXPECT_EQ(again.code, 2);
  EXPECT_NE(again.err.find("exists already"), std::string::npos);
}

}  // namespace
}  // namespace temper::cli
