// GRPO runs with each kind of reward that is no local script: tasks, models, remotes.
#include <signal.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "tests/cli/programs.h"
#include "tests/reward/fake_remote.h"

namespace temper::cli {
namespace {

using reward::FakeServer;
using reward::Frames;
using reward::Honest;
using reward::Scores;
using reward::Sent;

const std::string kSource = TEMPER_SOURCE_DIR;

class RewardTraining : public ProgramTest {
 protected:
  RewardTraining() {
    Model();
    std::string rows;
    for (int i = 0; i < 20; ++i) {
      rows += R"({"prompt": ")" + std::to_string(i) + R"(;", "answer": "e"})" + "\n";
    }
    Write("rows.jsonl", rows);
  }

  /// Three steps of two groups of two samples; `rewards` and `data` as JSON.
  Ran Train(const std::string& rewards, const std::vector<std::string>& sets = {},
            const std::string& data = R"({"train": "rows.jsonl"})",
            const std::string& environment = "") const {
    const std::string config =
        Write("grpo.json", R"({"output_dir": "run", "model": "model", "threads": 2, "data": )" +
                               data + rewards + R"(,
        "grpo": {"max_steps": 3, "groups_per_step": 2, "num_generations": 2,
                 "max_completion_length": 8, "learning_rate": 1e-4}})");
    std::vector<std::string> args = {"grpo", config};
    for (const std::string& set : sets) args.insert(args.end(), {"--set", set});
    return Temper(args, "", environment);
  }

  std::string Remote(const std::string& more = "") const {
    return R"(, "rewards": [{"remote": ")" + Endpoint() + R"(", "timeout_s": 0.3, "retries": 1)" +
           more + "}]";
  }
  std::string Endpoint() const { return "ipc://" + Path("remote"); }

  std::vector<Json> Query(const std::string& sql) const {
    const Ran ran = Temper({"runs", "query", Path("run"), sql});
    EXPECT_EQ(ran.code, 0) << ran.err;
    return ran.Lines();
  }
};

TEST_F(RewardTraining, ATaskNeedsNoDataSetAndScoresItsOwnPrompts) {
  const std::string script = kSource + "/reward/library/arithmetic.lua";
  const Ran ran = Train("", {"seed=11"}, R"({"task": ")" + script + R"("})");
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.Lines().size(), 3u);
  const std::vector<Json> rows =
      Temper({"reward", "prompts", script, "--n", "6", "--seed", "11"}).Lines();
  const std::vector<Json> groups = Query("SELECT grp, prompt_json FROM prompt_group ORDER BY grp");
  ASSERT_EQ(groups.size(), 6u);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    EXPECT_EQ(groups[g]["prompt_json"], rows.at(g)["prompt"].dump()) << g;
  }
  const Json parts = Query(
      "SELECT count(*) AS n, sum(status = 'ok') AS ok, count(DISTINCT script_sha256) AS scripts "
      "FROM reward_part WHERE name = 'arithmetic'")[0];
  EXPECT_EQ(parts, Json({{"n", 12}, {"ok", 12}, {"scripts", 1}}));
}

TEST_F(RewardTraining, AScriptThatChangesScoresTheGroupsThatFollow) {
  Write("x.lua", "function score(s) return 1 end");
  // The author changes the script after a step and ends the run once a later step was paid by the
  // new one: however fast steps are, there is one of each.
  std::atomic<bool> ended = false;
  std::thread author([&] {
    const auto until = [&](const std::string& text) {
      while (!ended && Read(Path("run/metrics.jsonl")).find(text) == std::string::npos) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    };
    until("\"reward\":1.0");
    Write("x.lua", "function score(s) return 2 end");
    until("\"reward\":2.0");
    if (!ended) kill(std::stoi(Read(Path("pid"))), SIGTERM);
  });
  const Ran ran =
      Train(R"(, "rewards": [{"script": "x.lua"}])", {"grpo.max_steps=20000", "grpo.save_steps=0"},
            R"({"train": "rows.jsonl"})", "echo $$ >" + Quoted(Path("pid")) + "; exec");
  ended = true;
  author.join();
  ASSERT_EQ(ran.code, 3) << ran.err;
  EXPECT_NE(ran.err.find("continue with --resume"), std::string::npos) << ran.err;
  const std::vector<Json> used = Query(
      "SELECT script_sha256, min(value) AS low, max(value) AS high FROM reward_part "
      "GROUP BY 1 ORDER BY min(grp)");
  ASSERT_EQ(used.size(), 2u);
  EXPECT_EQ(used[0]["high"], 1.0);
  EXPECT_EQ(used[1]["low"], 2.0);
  EXPECT_EQ(Query("SELECT count(*) AS n FROM (SELECT grp FROM reward_part GROUP BY grp "
                  "HAVING count(DISTINCT script_sha256) > 1)")[0]["n"],
            0);
}

TEST_F(RewardTraining, ARewardModelScoresARun) {
  ASSERT_EQ(
      Temper({"init", "--arch", kSource + "/tests/reward/data/reward_arch.json", "--tokenizer",
              kSource + "/configs/tokenizers/bytes", "--seed", "5", "--out", Path("rm")})
          .code,
      0);
  const Ran ran = Train(R"(, "rewards": [{"model": "rm", "weight": 2}])");
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json all = Query(
      "SELECT count(*) AS n, count(DISTINCT score) AS scores, sum(r.score = 2 * p.value) AS twice "
      "FROM rollout r JOIN reward_part p USING (grp, sample, attempt) "
      "WHERE p.name = 'rm' AND p.status = 'ok' AND r.state = 'trained'")[0];
  EXPECT_EQ(all["n"], 12);
  EXPECT_EQ(all["twice"], 12);
  EXPECT_GT(all["scores"], 6);
  EXPECT_TRUE(ran.Lines()[2]["rewards/rm/mean"].is_number());
}

TEST_F(RewardTraining, ARemoteScoresARunAGroupAtATime) {
  FakeServer server(Endpoint(), Honest);
  const Ran ran = Train(Remote());
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(server.asked(), 6);
  const Json all = Query(
      "SELECT count(*) AS n, sum(score = (instr(text, 'e') > 0)) AS right FROM rollout "
      "WHERE state = 'trained'")[0];
  EXPECT_EQ(all, Json({{"n", 12}, {"right", 12}}));
}

/// Answers so many groups, then its socket is gone.
FakeServer::Reply DiesAfter(int groups, FakeServer** server) {
  return [=, asked = 0](const Frames& request) mutable {
    if (++asked == groups) (*server)->Die();
    return Honest(request);
  };
}

TEST_F(RewardTraining, ARemoteThatDiesCostsTheSamplesItWasAskedFor) {
  FakeServer* self = nullptr;
  FakeServer server(Endpoint(), DiesAfter(2, &self));
  self = &server;
  const Ran ran = Train(Remote());
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.Lines().size(), 3u);
  EXPECT_EQ(ran.Lines()[2]["reward_failures/unavailable"], 4);
  EXPECT_NE(ran.err.find("unavailable"), std::string::npos) << ran.err;
  EXPECT_EQ(
      Query("SELECT state, reason, count(*) AS n, count(score) AS scores FROM rollout "
            "GROUP BY 1, 2"),
      (std::vector<Json>{{{"state", "dropped"}, {"reason", "unavailable"}, {"n", 8}, {"scores", 0}},
                         {{"state", "trained"}, {"reason", ""}, {"n", 4}, {"scores", 4}}}));
  const Json part =
      Query("SELECT message FROM reward_part WHERE status = 'unavailable' LIMIT 1")[0];
  EXPECT_EQ(part["message"], Endpoint() + ": no answer in 0.3 s, asked 2 times");
}

TEST_F(RewardTraining, OnErrorSaysWhatADeadRemoteDoesToTheRun) {
  FakeServer* self = nullptr;
  auto server = std::make_unique<FakeServer>(Endpoint(), DiesAfter(2, &self));
  self = server.get();
  const Ran stopped = Train(Remote(), {"reward.on_error=stop"});
  EXPECT_EQ(stopped.code, 3) << stopped.err;
  EXPECT_NE(stopped.err.find("reward unavailable: remote: " + Endpoint() +
                             ": no answer in 0.3 s, asked 2 times"),
            std::string::npos)
      << stopped.err;
  EXPECT_EQ(stopped.Lines().size(), 1u);  // the step that was scored

  const Ran scored = Train(Remote(), {"reward.on_error=score", "reward.on_error_score=-1",
                                      "output_dir=" + Path("scored")});
  ASSERT_EQ(scored.code, 0) << scored.err;
  const Ran query = Temper({"runs", "query", Path("scored"),
                            "SELECT score, status, count(*) AS n FROM rollout GROUP BY 1, 2"});
  EXPECT_EQ(query.out, "{\"score\":-1.0,\"status\":\"unavailable\",\"n\":12}\n");
}

TEST_F(RewardTraining, NonsenseFromARemoteIsNeverANumber) {
  int asked = 0;
  const char* const nonsense[] = {R"(["1", "1"])", R"([1])", R"([{"score": [1]}, true])", "7"};
  FakeServer server(Endpoint(), [&](const Frames& request) {
    return Sent(Scores(request, Json::parse(nonsense[asked++ % 4])));
  });
  const Ran ran = Train(Remote());
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(Query("SELECT state, reason, count(*) AS n, count(score) AS scores FROM rollout "
                  "GROUP BY 1, 2"),
            (std::vector<Json>{
                {{"state", "dropped"}, {"reason", "invalid_return"}, {"n", 12}, {"scores", 0}}}));
  EXPECT_EQ(Query("SELECT count(value) AS n FROM reward_part")[0]["n"], 0);
  for (const Json& line : ran.Lines()) EXPECT_EQ(line["grad_norm"], 0.0) << line;
}

}  // namespace
}  // namespace temper::cli
