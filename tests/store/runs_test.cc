#include "store/runs.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <fstream>

#include "configs/error.h"
#include "store/trajectories.h"
#include "tests/store/fixtures.h"

namespace temper::store {
namespace {

/// A folder with one GRPO run of one step in `name`.
Trajectories MakeRun(const Folder& folder, const std::string& name, int max_steps) {
  std::filesystem::create_directory(folder / name);
  Trajectories::RunInfo info = SomeRun();
  info.config_json = "{\"grpo\":{\"max_steps\":" + std::to_string(max_steps) + "}}";
  Trajectories db = Trajectories::Create(folder / (name + "/trajectories.db"), info);
  db.PutGroup(SomeGroup(41));
  db.PutRollout(SomeRollout(41, 3));
  db.PutRollout(SomeRollout(41, 3, 1));
  db.PutScore(41, 3, 0, 0.75, "ok", {{"sum", 0.75, 1.0, "ok", "", 0, "ab", 12}});
  db.PutStep({1, 3, 0.5, 0.75, 2.0, "step-000001"}, {{41, 3, 0, 1.25, 0}}, Json());
  return db;
}

TEST(Runs, AreListedByNameWithTheirState) {
  const Folder folder;
  { MakeRun(folder, "b-done", 1); }
  { MakeRun(folder, "c-stopped", 9); }
  Trajectories running = MakeRun(folder, "d-running", 9);
  std::filesystem::create_directory(folder / "a-sft");
  std::ofstream(folder / "a-sft/config.json") << "{}";
  std::ofstream(folder / "a-sft/metrics.jsonl") << "{\"step\":1}\n{\"step\":2}\n{\"step\":3";
  std::filesystem::create_directory(folder / "no-run");
  std::filesystem::create_directory(folder / "e-broken");
  std::ofstream(folder / "e-broken/trajectories.db") << "not a database";

  const std::vector<Json> runs = ListRuns(folder.path());
  ASSERT_EQ(runs.size(), 5u);
  EXPECT_EQ(runs[0]["name"], "a-sft");
  EXPECT_EQ(runs[0]["steps"], 2);
  EXPECT_TRUE(runs[0]["rollouts"].is_null());
  EXPECT_EQ(runs[1]["state"], "finished");
  EXPECT_EQ(runs[1]["steps"], 1);
  EXPECT_EQ(runs[1]["reward"], 0.75);
  EXPECT_EQ(runs[1]["rollouts"], 2);
  EXPECT_EQ(runs[1]["dropped"], 1);
  EXPECT_EQ(runs[2]["state"], "stopped");
  EXPECT_EQ(runs[4]["state"], "broken");
  EXPECT_EQ(ListRuns(folder / "b-done").size(), 1u);
  EXPECT_NE(ListText(runs).find("b-done"), std::string::npos);
}

TEST(Runs, ThatShareAFolderAreListedAndAModelIsNone) {
  const Folder folder;
  for (const char* name : {"quickstart", "quickstart/model", "quickstart/sft"}) {
    std::filesystem::create_directory(folder / name);
  }
  { MakeRun(folder, "quickstart/grpo", 1); }
  std::ofstream(folder / "quickstart/model/config.json") << "{}";
  std::ofstream(folder / "quickstart/sft/config.json") << "{\"sft\":{\"max_steps\":2}}";
  std::ofstream(folder / "quickstart/sft/metrics.jsonl") << "{\"step\":1}\n{\"step\":2}\n";
  const std::vector<Json> runs = ListRuns(folder.path());
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0]["name"], "quickstart/grpo");
  EXPECT_EQ(runs[1]["name"], "quickstart/sft");
  EXPECT_EQ(runs[1]["state"], "finished");
}

TEST(Runs, SayWhichProcessStillWrites) {
  // Asked from this process while a child holds the run, as a reader would.
  const Folder folder;
  int ready[2], done[2];
  ASSERT_EQ(pipe(ready), 0);
  ASSERT_EQ(pipe(done), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    Trajectories db = MakeRun(folder, "r", 9);
    char byte = 1;
    close(done[1]);
    if (write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) < 0) _exit(1);
    _exit(0);
  }
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_EQ(ListRuns(folder.path()).at(0)["state"], "running");
  close(done[1]);
  int status;
  waitpid(pid, &status, 0);
  EXPECT_EQ(ListRuns(folder.path()).at(0)["state"], "stopped");
}

TEST(Runs, ShowOneRun) {
  const Folder folder;
  { MakeRun(folder, "r", 9); }
  const Json run = ShowRun(folder / "r");
  EXPECT_EQ(run["checkpoint"], "step-000001");
  EXPECT_EQ(run["rollouts_by_state"].dump(), R"({"dropped":1,"trained":1})");
  EXPECT_EQ(run["dropped_reasons"].dump(), R"({"duplicate":1})");
  EXPECT_EQ(run["statuses"].dump(), R"({"ok":1})");
  EXPECT_EQ(run["last_steps"].size(), 1u);
  EXPECT_EQ(run["version"], 3);
  EXPECT_NE(RunText(run).find("step-000001"), std::string::npos);
  EXPECT_THROW(ShowRun(folder / "none"), UserError);
}

TEST(Runs, ShowOneRolloutWithItsPromptTokensAndParts) {
  const Folder folder;
  { MakeRun(folder, "r", 9); }
  for (const char* name : {"g41.s3@v3", "g41.s3"}) {
    const Json shown = ShowRollout(folder / "r", name);
    EXPECT_EQ(shown["name"], "g41.s3@v3");
    EXPECT_EQ(shown["prompt"], "17 + 25 =");
    EXPECT_EQ(shown["row"]["answer"], 42);
    EXPECT_EQ(shown["text"], "42");
    EXPECT_EQ(shown["ids"].size(), 3u);
    EXPECT_EQ(shown["logp"][1], -1.5);
    EXPECT_EQ(shown["score"], 0.75);
    EXPECT_EQ(shown["parts"][0]["name"], "sum");
  }
  EXPECT_EQ(ShowRollout(folder / "r", "g41.s3.a1@v3")["reason"], "duplicate");
  const std::string text = RolloutText(ShowRollout(folder / "r", "g41.s3"));
  EXPECT_NE(text.find("17 + 25 ="), std::string::npos);
  EXPECT_NE(text.find("-1.500000"), std::string::npos);
}

TEST(Runs, RefuseARolloutThatIsNotThere) {
  const Folder folder;
  { MakeRun(folder, "r", 9); }
  for (const char* name : {"", "41", "g41", "g41.s3@v", "g41.s3@v17", "g41.s9", "g41.s3; DROP"}) {
    EXPECT_THROW(ShowRollout(folder / "r", name), UserError) << name;
  }
}

}  // namespace
}  // namespace temper::store
