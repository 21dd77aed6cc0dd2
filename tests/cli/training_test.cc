// The supervisor with real processes: trained, killed, replaced, stopped, resumed.
#include "tests/cli/training.h"

namespace temper::cli {
namespace {

TEST_F(TrainingTest, AMissingConfigIsOneLineAndExit2) {
  for (const char* job : {"sft", "grpo"}) {
    const Ran ran = Temper({job, "/nowhere.json"});
    EXPECT_EQ(ran.code, 2) << job;
    EXPECT_EQ(ran.out, "");
    EXPECT_NE(ran.err.find("/nowhere.json: cannot be opened: No such file or directory\n"),
              std::string::npos)
        << ran.err;
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  }
}

TEST_F(TrainingTest, SftThenGrpoRunFromTheCommandLine) {
  const std::string sft =
      Write("sft.json", R"({"output_dir": "tuned", "model": "model", "threads": 2,
      "data": {"train": "sft.jsonl"}, "sft": {"max_steps": 3, "tokens_per_step": 128}})");
  const Ran tuned = Temper({"sft", sft, "--set", "sft.learning_rate=0.001"});
  ASSERT_EQ(tuned.code, 0) << tuned.err;
  ASSERT_EQ(tuned.Lines().size(), 3u);
  EXPECT_LT(tuned.Lines()[2]["loss"].get<double>(), tuned.Lines()[0]["loss"].get<double>());
  EXPECT_EQ(Read(Path("tuned/metrics.jsonl")), tuned.out);

  const Ran ran = Temper({"grpo", config_, "--set", "model=tuned/checkpoints/latest"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const std::vector<Json> lines = ran.Lines();
  ASSERT_EQ(lines.size(), 3u);
  for (const Json& line : lines) EXPECT_EQ(line["mismatch/logp_abs_diff_max"], 0.0) << line;
  EXPECT_EQ(Read(Path("run/metrics.jsonl")), ran.out);
  for (const char* file : {"config.json", "endpoint", "logs/actor-1.log",
                           "logs/reward-worker-1.log", "checkpoints/latest/config.json"}) {
    EXPECT_TRUE(fs::exists(Path("run") + "/" + file)) << file;
  }
  const Ran counted = Temper(
      {"runs", "query", Path("run"), "SELECT state, count(*) AS n FROM rollout GROUP BY state"});
  EXPECT_EQ(counted.out, "{\"state\":\"trained\",\"n\":12}\n");
  EXPECT_NE(Temper({"runs", "list", dir_}).out.find("finished"), std::string::npos);
  EXPECT_EQ(Temper({"generate", "--model", Path("run/checkpoints/latest"), "--prompt", "3;",
                    "--max-new-tokens", "4"})
                .code,
            0);
  const Ran again = Temper({"grpo", config_});
  EXPECT_EQ(again.code, 2);
  EXPECT_NE(again.err.find("output_dir exists"), std::string::npos) << again.err;
}

TEST_F(TrainingTest, ActorAndLearnerAgreeToTheBitInEveryMode) {
  for (const char* dtype : {"bf16", "fp8", "fp8-w8a8"}) {
    for (const char* cache : {"bf16", "fp8"}) {
      const std::string run = std::string(dtype) + "-" + cache;
      SCOPED_TRACE(run);
      const Ran ran = Temper({"grpo", config_, "--set", std::string("dtype=") + dtype, "--set",
                              std::string("cache_dtype=") + cache, "--set", "output_dir=" + run,
                              "--set", "grpo.max_steps=2", "--set", "grpo.learning_rate=0.001"});
      ASSERT_EQ(ran.code, 0) << ran.err;
      ASSERT_EQ(ran.Lines().size(), 2u);
      for (const Json& line : ran.Lines()) {
        EXPECT_EQ(line["mismatch/logp_abs_diff_max"], 0.0) << line;
        EXPECT_EQ(line["actor/ppo_kl"], 0.0) << line;
        EXPECT_GT(line["publish/bytes_changed"], 0.0) << line;
      }
      const Ran numerics = Temper({"runs", "query", Path(run), "SELECT numerics FROM run"});
      EXPECT_EQ(numerics.out,
                "{\"numerics\":\"canon-1/" + std::string(dtype) + "/cache-" + cache + "\"}\n");
    }
  }
}

TEST_F(TrainingTest, AnFp8RunResumesFromTheBytesThatItsActorsRan) {
  const std::vector<std::string> args = {"grpo",  config_,
                                         "--set", "dtype=fp8",
                                         "--set", "cache_dtype=fp8",
                                         "--set", "grpo.learning_rate=0.001",
                                         "--set", "grpo.save_steps=2"};
  const auto run = [&](std::vector<std::string> more) {
    more.insert(more.begin(), args.begin(), args.end());
    return Temper(more);
  };
  const Ran whole = run({"--set", "output_dir=whole", "--set", "grpo.max_steps=4"});
  ASSERT_EQ(whole.code, 0) << whole.err;
  ASSERT_EQ(run({"--set", "output_dir=part", "--set", "grpo.max_steps=2"}).code, 0);
  const Ran rest = run({"--set", "output_dir=part", "--set", "grpo.max_steps=4", "--set",
                        "resume_allow=[\"grpo.max_steps\"]", "--resume"});
  ASSERT_EQ(rest.code, 0) << rest.err;
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    EXPECT_EQ(Read(Path("whole/checkpoints/step-000004/") + file),
              Read(Path("part/checkpoints/step-000004/") + file))
        << file;
  }
}

TEST_F(TrainingTest, StoredRolloutsAreGeneratedAgainBitForBit) {
  for (const char* dtype : {"fp32", "fp8"}) {
    SCOPED_TRACE(dtype);
    const std::string run = Path(std::string("kept-") + dtype);
    ASSERT_EQ(Temper({"grpo", config_, "--set", "output_dir=" + run, "--set", "keep_versions=all",
                      "--set", std::string("dtype=") + dtype, "--set", "grpo.learning_rate=0.01"})
                  .code,
              0);
    const Ran all = Temper({"runs", "replay", run, "--json"});
    ASSERT_EQ(all.code, 0) << all.out << all.err;
    EXPECT_EQ(all.Lines()[0]["identical"], 12);
    EXPECT_EQ(Temper({"runs", "replay", run, "g1.s1", "--threads", "1"}).code, 0);

    // Other weights under a version's name give other rollouts.
    fs::copy_file(run + "/versions/v000003.safetensors", run + "/versions/v000001.safetensors",
                  fs::copy_options::overwrite_existing);
    const Ran other = Temper({"runs", "replay", run, "--json"});
    EXPECT_EQ(other.code, 1) << other.out;
    EXPECT_FALSE(other.Lines()[0]["different"].empty());

    fs::remove(run + "/versions/v000001.safetensors");
    const Ran gone = Temper({"runs", "replay", run, "g2.s0"});
    EXPECT_EQ(gone.code, 2);
    EXPECT_NE(gone.err.find("the weights of version 1 are not kept; kept: 0, 2 to 3"),
              std::string::npos)
        << gone.err;
  }
}

TEST_F(TrainingTest, SeveralOptimizerStepsABatchMoveTheRatioAndClipIt) {
  std::vector<std::string> args =
      Sets({"grpo.num_iterations=2", "grpo.mini_batches=2", "grpo.max_steps=8",
            "grpo.learning_rate=0.01", "grpo.save_steps=0", "cache_dtype=bf16", "dtype=bf16"});
  args.insert(args.begin(), {"grpo", config_});
  const Ran ran = Temper(args);
  ASSERT_EQ(ran.code, 0) << ran.err;
  const std::vector<Json> lines = ran.Lines();
  ASSERT_EQ(lines.size(), 8u);
  double clipped = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["step"], i + 1);
    EXPECT_EQ(lines[i]["version"], i / 4);
    EXPECT_EQ(lines[i]["mismatch/logp_abs_diff_max"], 0.0);
    // Only the first step of a batch is by the policy that sampled.
    EXPECT_EQ(lines[i]["actor/ppo_kl"] == 0.0, i % 4 == 0) << lines[i];
    clipped += lines[i]["clip_ratio/region_mean"].get<double>();
  }
  EXPECT_GT(clipped, 0.0);
  const Ran steps = Temper(
      {"runs", "query", Path("run"), "SELECT trained_step, count(*) AS n FROM rollout GROUP BY 1"});
  EXPECT_EQ(steps.out, "{\"trained_step\":4,\"n\":4}\n{\"trained_step\":8,\"n\":4}\n");
}

TEST_F(TrainingTest, ARunWithAllOfItResumesBitForBit) {
  Write("reward.lua", "function score(s) return s.completion_ids[1] % 2 end");
  const std::vector<std::string> sets = {"grpo.num_iterations=2",
                                         "grpo.beta=0.05",
                                         "grpo.sync_ref_model=true",
                                         "grpo.ref_model_sync_steps=2",
                                         "grpo.dynamic_sampling=true",
                                         "grpo.learning_rate=0.01",
                                         "grpo.top_k=40",
                                         "grpo.top_p=0.95",
                                         "grpo.truncated_sampling=renormalise",
                                         "grpo.eval_steps=2",
                                         "data.eval=grpo.jsonl",
                                         "grpo.save_steps=4",
                                         "grpo.soft_overlong={\"max_length\": 8, \"buffer\": 4}"};
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> args = {"grpo", config_};
    for (const std::string& arg : Sets(sets)) args.push_back(arg);
    args.insert(args.end(), more.begin(), more.end());
    return Temper(args);
  };
  const Ran whole = run(Sets({"output_dir=whole", "grpo.max_steps=8"}));
  ASSERT_EQ(whole.code, 0) << whole.err;
  ASSERT_EQ(run(Sets({"output_dir=part", "grpo.max_steps=6"})).code, 0);
  fs::remove_all(Path("part/checkpoints/step-000006"));  // killed before it was written
  std::vector<std::string> more =
      Sets({"output_dir=part", "grpo.max_steps=8", "resume_allow=[\"grpo.max_steps\"]"});
  more.push_back("--resume");
  const Ran rest = run(more);
  ASSERT_EQ(rest.code, 0) << rest.err;
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "reference.safetensors"}) {
    EXPECT_EQ(Read(Path("whole/checkpoints/step-000008/") + file),
              Read(Path("part/checkpoints/step-000008/") + file))
        << file;
  }
  const std::vector<Json> lines = whole.Lines(), again = rest.Lines();
  ASSERT_EQ(lines.size(), 8u);
  ASSERT_EQ(again.size(), 4u);
  std::int64_t passed_over = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(lines[i]["mismatch/logp_abs_diff_max"], 0.0);
    EXPECT_EQ(lines[i].contains("eval_reward"), i % 2 == 1);
    if (i % 2 == 0) passed_over += lines[i]["dynamic_sampling/passed_over"].get<std::int64_t>();
    if (i < 4) continue;
    for (const char* key : {"loss", "reward", "kl", "grad_norm", "dynamic_sampling/groups"})
      EXPECT_EQ(lines[i][key], again[i - 4][key]) << key;
  }
  EXPECT_GT(passed_over, 0);
  for (const char* folder : {"whole", "part"}) {
    const Ran states = Temper({"runs", "query", Path(folder),
                               "SELECT state, reason, count(*) AS n FROM rollout GROUP BY 1, 2"});
    EXPECT_EQ(states.out, "{\"state\":\"dropped\",\"reason\":\"zero_std\",\"n\":" +
                              std::to_string(2 * passed_over) +
                              "}\n{\"state\":\"trained\",\"reason\":\"\",\"n\":16}\n");
  }
}

TEST_F(TrainingTest, AnAsynchronousRunOfSeveralStepsABatchKeepsItsLag) {
  std::vector<std::string> args =
      Sets({"grpo.max_lag=1", "grpo.num_iterations=2", "grpo.max_steps=12", "grpo.save_steps=0",
            "grpo.learning_rate=0.001", "grpo.rollout_correction.mode=token_truncate",
            "grpo.rollout_correction.clip_max=2"});
  args.insert(args.begin(), {"grpo", config_});
  const Ran ran = Temper(args);
  ASSERT_EQ(ran.code, 0) << ran.err;
  std::int64_t lag = 0;
  for (const Json& line : ran.Lines()) {
    lag = std::max(lag, line["lag/max"].get<std::int64_t>());
    if (line.contains("mismatch/logp_abs_diff_max")) {
      EXPECT_EQ(line["mismatch/logp_abs_diff_max"], 0.0);
    }
    if (line["step"].get<std::int64_t>() % 2 == 1) {
      EXPECT_EQ(line["actor/ppo_kl"], 0.0) << line;
    }
  }
  EXPECT_LE(lag, 1);
}

TEST_F(TrainingTest, KilledActorsAndRewardWorkersAreReplaced) {
  Start({"grpo", config_, "--set", "grpo.max_steps=400"});
  for (const char* role : {"actor", "reward-worker"}) {
    const std::int64_t before = Steps();
    ASSERT_TRUE(Eventually([&] { return Steps() > before && Child(role) > 0; }))
        << Read(Path("err"));
    kill(Child(role), SIGKILL);
  }
  EXPECT_EQ(Wait(), 0) << Read(Path("err"));
  EXPECT_EQ(Steps(), 400);
  const std::string said = Read(Path("err"));
  EXPECT_NE(said.find("a1 ended (killed by signal 9); started again"), std::string::npos) << said;
  EXPECT_NE(said.find("w1 ended (killed by signal 9); started again"), std::string::npos) << said;
}

TEST_F(TrainingTest, ARunFromStoredRolloutsIsTheRunThatStoredThem) {
  const std::vector<std::string> same = {
      "grpo", config_, "--set", "grpo.num_iterations=2", "--set", "grpo.max_steps=6"};
  ASSERT_EQ(Temper(same).code, 0);
  const auto from_run = [&](std::vector<std::string> more) {
    std::vector<std::string> args = same;
    args.insert(args.end(), {"--from", Path("run")});
    args.insert(args.end(), more.begin(), more.end());
    return Temper(args);
  };
  const Ran ran = from_run({"--set", "output_dir=again"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    EXPECT_EQ(Read(Path("run/checkpoints/step-000006/") + file),
              Read(Path("again/checkpoints/step-000006/") + file))
        << file;
  }
  EXPECT_FALSE(fs::exists(Path("again/endpoint")));
  // Another loss on the same rollouts: other weights, off the policy that sampled.
  const Ran other = from_run({"--set", "output_dir=other", "--set", "grpo.loss_type=dr_grpo",
                              "--set", "grpo.learning_rate=0.01"});
  ASSERT_EQ(other.code, 0) << other.err;
  EXPECT_NE(Read(Path("run/checkpoints/step-000006/model.safetensors")),
            Read(Path("other/checkpoints/step-000006/model.safetensors")));
  EXPECT_EQ(Temper({"grpo", config_, "--from", Path("nowhere"), "--set", "output_dir=none"}).code,
            2);
  EXPECT_FALSE(fs::exists(Path("none")));
}

TEST_F(TrainingTest, ASignalStopsTheRunWithAllItsProcessesAndResumeFinishesIt) {
  Start({"grpo", config_, "--set", "grpo.max_steps=400", "--set", "grpo.save_steps=5"});
  ASSERT_TRUE(Eventually([&] { return Steps() > 6; })) << Read(Path("err"));
  const auto children = ChildrenOf(supervisor_);
  EXPECT_EQ(children.size(), 3u);
  kill(supervisor_, SIGTERM);
  const auto asked = Clock::now();
  EXPECT_EQ(Wait(), 3);
  EXPECT_LT(std::chrono::duration<double>(Clock::now() - asked).count(), 10);
  for (const auto& [pid, command] : children) {
    EXPECT_TRUE(Eventually([&] { return kill(pid, 0) != 0; }, 5)) << command;
  }
  EXPECT_NE(Read(Path("err")).find("continue with --resume"), std::string::npos);
  const Ran ran = Temper(
      {"grpo", config_, "--set", "grpo.max_steps=400", "--set", "grpo.save_steps=5", "--resume"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(Steps(), 400);
}

TEST_F(TrainingTest, NoProcessOutlivesAKilledSupervisor) {
  Start({"grpo", config_, "--set", "grpo.max_steps=100000"});
  ASSERT_TRUE(Eventually([&] { return Steps() > 1; })) << Read(Path("err"));
  const auto children = ChildrenOf(supervisor_);
  ASSERT_EQ(children.size(), 3u);
  kill(supervisor_, SIGKILL);
  EXPECT_EQ(Wait(), 128 + SIGKILL);
  for (const auto& [pid, command] : children) {
    EXPECT_TRUE(Eventually([&] { return kill(pid, 0) != 0; }, 10)) << command;
  }
}

TEST_F(TrainingTest, ARewardThatCannotCompileIsToldBeforeAnythingIsWritten) {
  Write("reward.lua", "function score(s) return 1\n");
  const Ran ran = Temper({"grpo", config_});
  EXPECT_EQ(ran.code, 2);
  EXPECT_NE(ran.err.find("reward.lua:"), std::string::npos) << ran.err;
  EXPECT_FALSE(fs::exists(Path("run")));
}

TEST_F(TrainingTest, TheQuickstartRefusesWrongSettingsBeforeItMakesItsFolder) {
  for (const char* set : {"model=m", "sft.max_step=3", "grpo.epsilon=7", "seed=4"}) {
    const Ran ran = Temper({"quickstart", "--out", Path("quick"), "--set", set});
    EXPECT_EQ(ran.code, 2) << set;
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
    EXPECT_FALSE(fs::exists(Path("quick"))) << set;
  }
}

TEST_F(TrainingTest, TheQuickstartTellsTheWholeStory) {
  const Ran ran = Temper({"quickstart", "--out", Path("quick"), "--seed", "3", "--set",
                          "sft.max_steps=2", "--set", "grpo.max_steps=2", "--set", "threads=2"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json last = ran.Lines().back();
  for (const char* key : {"accuracy_init", "accuracy_sft", "accuracy_grpo"}) {
    EXPECT_TRUE(last[key].is_number()) << key;
  }
  EXPECT_EQ(last["problems"], 500);
  for (const char* key : {"sft", "grpo", "eval"}) EXPECT_GT(last["seconds"][key], 0.0) << key;
  EXPECT_EQ(last["run"], Path("quick/grpo"));
  EXPECT_TRUE(fs::exists(Path("quick/grpo/trajectories.db")));
  const Ran query = Temper({"runs", "query", Path("quick"), "SELECT count(*) AS steps FROM step"});
  EXPECT_EQ(query.out, "{\"steps\":2}\n");
}

TEST_F(TrainingTest, AStepWhoseRewardsAllFailTrainsNothingAndGoesOn) {
  Write("reward.lua", "function score(s) return s.nothing.here end\n");
  const Ran ran = Temper({"grpo", config_});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.Lines().back()["step"], 3);
  EXPECT_EQ(ran.Lines().back()["grad_norm"], 0.0);
  const Ran dropped = Temper({"runs", "query", Path("run"),
                              "SELECT state, status, count(*) AS n FROM rollout GROUP BY 1, 2"});
  EXPECT_EQ(dropped.out, "{\"state\":\"dropped\",\"status\":\"script_error\",\"n\":12}\n");
}

}  // namespace
}  // namespace temper::cli
