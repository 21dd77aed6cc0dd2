// verify, export, diff, backup and prune on small runs that are damaged on purpose.
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <fstream>
#include <thread>

#include "configs/error.h"
#include "configs/sha256.h"
#include "store/diff.h"
#include "store/export.h"
#include "store/maintain.h"
#include "store/verify.h"
#include "tests/store/fixtures.h"

namespace temper::store {
namespace {

/// A run of `steps` steps, a group of two a step; sample 1 is the better one.
Trajectories MakeRun(const std::string& dir, int steps, const std::string& checkpoint = "") {
  std::filesystem::create_directory(dir);
  Trajectories db = Trajectories::Create(dir + "/trajectories.db", SomeRun());
  db.Begin();
  for (int step = 1; step <= steps; ++step) {
    const auto grp = static_cast<std::uint64_t>(step - 1);
    db.PutGroup(SomeGroup(grp));
    std::vector<TrainedSample> trained;
    for (std::uint32_t s = 0; s < 2; ++s) {
      RolloutRow row = SomeRollout(grp, s);
      row.text = s == 0 ? "41" : "42";
      db.PutRollout(row);
      db.PutScore(grp, s, 0, s, "ok", {{"sum", double(s), 1.0, "ok", "", 0, "ab", 12}});
      trained.push_back({grp, s, 0, s == 0 ? -1.0 : 1.0, 0});
    }
    db.PutStep({step, 3, 0.5, 0.5, 2.0, checkpoint}, trained, Json{{"loss", 0.5}});
  }
  db.Commit();
  return db;
}

void Damage(const std::string& path, const std::string& sql) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  char* error = nullptr;
  EXPECT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &error), SQLITE_OK) << error;
  sqlite3_close(db);
}

std::string FirstProblem(const std::string& dir) {
  const Json report = VerifyRun(dir);
  EXPECT_EQ(report["ok"], report["problems"].empty());
  return report["problems"].empty() ? "" : report["problems"][0].get<std::string>();
}

std::vector<Json> Exported(const std::string& dir, const ExportOptions& options) {
  std::vector<Json> rows;
  ExportRun(dir, options, [&](const Json& row) { rows.push_back(row); });
  return rows;
}

template <typename F>
std::string ErrorOf(const F& call) {
  try {
    call();
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

TEST(Verify, AWholeRunIsWholeEvenWhileItIsWritten) {
  const Folder folder;
  Trajectories db = MakeRun(folder / "r", 3);
  const Json report = VerifyRun(folder / "r");
  EXPECT_EQ(report["ok"], true) << report.dump();
  EXPECT_EQ(report["rollouts"], 6);
  EXPECT_EQ(report["groups"], 3);
  EXPECT_EQ(report["parts"], 6);
  EXPECT_EQ(report["steps"], 3);
}

TEST(Verify, NamesEveryKindOfDamage) {
  const std::vector<std::pair<std::string, std::string>> damages = {
      {"UPDATE rollout SET ids = x'05000000feffffffffffff7f' WHERE grp = 1 AND sample = 0",
       "g1.s0@v3: its checksum does not hold"},
      {"UPDATE rollout SET logp = zeroblob(12) WHERE grp = 1 AND sample = 1",
       "g1.s1@v3: its checksum"},
      {"UPDATE rollout SET text = '43' WHERE grp = 2 AND sample = 1", "g2.s1@v3: its checksum"},
      {"UPDATE rollout SET seed = 98 WHERE grp = 0", "g0.s0@v3: its checksum"},
      {"UPDATE rollout SET version = 2 WHERE grp = 0 AND sample = 0", "g0.s0@v2: its checksum"},
      {"DELETE FROM prompt_group WHERE grp = 1", "g1.s0: no prompt_group row"},
      {"DELETE FROM rollout WHERE grp = 1 AND sample = 0", "g1.s0 part sum: no rollout row"},
      {"UPDATE rollout SET advantage = NULL WHERE grp = 2 AND sample = 0",
       "g2.s0: trained without advantage or lag"},
      {"UPDATE rollout SET trained_step = 9 WHERE grp = 2 AND sample = 0",
       "g2.s0: trained in a step that is not there"},
      {"UPDATE rollout SET reason = 'why' WHERE grp = 0 AND sample = 1",
       "g0.s1: dropped without a reason, or a reason without being dropped"},
      {"UPDATE rollout SET status = '' WHERE grp = 0 AND sample = 1",
       "g0.s1: scored without a status"},
      {"INSERT INTO rollout SELECT grp, sample, 1, version, version_last, seed, state, reason, "
       "actor, text, ids, logp, versions, loss_mask, experts, kept, finish_reason, score, status, "
       "advantage, trained_step, lag, received_ms, crc32c FROM rollout WHERE grp = 0 AND sample = "
       "0",
       "g0.s0.a1@v3: its checksum"},
      {"INSERT INTO metric VALUES (7, 'x', 1)", "metric of step 7: its step is not there"},
      {"UPDATE step SET step = 5 WHERE step = 3", "g2.s0: trained in a step that is not there"},
  };
  for (const auto& [sql, problem] : damages) {
    const Folder folder;
    { MakeRun(folder / "r", 3); }
    EXPECT_EQ(FirstProblem(folder / "r"), "");
    Damage(folder / "r/trajectories.db", sql);
    EXPECT_EQ(FirstProblem(folder / "r").rfind(problem, 0), 0u)
        << sql << ": " << FirstProblem(folder / "r");
  }
}

TEST(Verify, SeesBytesThatTheFileSystemChanged) {
  const Folder folder;
  { MakeRun(folder / "r", 40); }
  Damage(folder / "r/trajectories.db", "PRAGMA wal_checkpoint(TRUNCATE)");
  const std::string path = folder / "r/trajectories.db";
  const auto size = static_cast<std::streamoff>(std::filesystem::file_size(path));
  int seen = 0, tried = 0;
  // One bit in the middle of each page: free space and page numbers apart, it must show.
  for (std::streamoff at = 8192 + 8000; at < size; at += 8192) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    char before = 0;
    file.seekg(at).read(&before, 1);
    const char after = static_cast<char>(before ^ 16);
    file.seekp(at).write(&after, 1);
    file.close();
    ++tried;
    try {
      seen += VerifyRun(folder / "r")["ok"] == false;
    } catch (const UserError&) {
      ++seen;
    }
    std::fstream(path, std::ios::in | std::ios::out | std::ios::binary).seekp(at).write(&before, 1);
  }
  EXPECT_GT(tried, 2);
  EXPECT_GT(seen, 0);
  EXPECT_EQ(FirstProblem(folder / "r"), "");
}

TEST(Verify, ChecksTheFilesOfCheckpoints) {
  const Folder folder;
  { MakeRun(folder / "r", 1); }
  const std::string dir = folder / "r/checkpoints/step-000001";
  std::filesystem::create_directories(dir);
  std::filesystem::create_directories(folder / "r/checkpoints/step-000002.tmp");
  std::ofstream(dir + "/state.json") << "{}";
  std::ofstream(dir + "/manifest.json")
      << Json{{"format", 1},
              {"files",
               Json::array({Json{{"name", "state.json"},
                                 {"size", 2},
                                 {"sha256", configs::Sha256Hex(std::string_view("{}"))}}})}}
             .dump();
  EXPECT_EQ(FirstProblem(folder / "r"), "");
  EXPECT_EQ(VerifyRun(folder / "r")["checkpoints"], 1);
  std::ofstream(dir + "/state.json") << "[]";
  EXPECT_NE(FirstProblem(folder / "r").find("its SHA-256 is not the manifest's"),
            std::string::npos);
  std::ofstream(dir + "/state.json") << "{ }";
  EXPECT_NE(FirstProblem(folder / "r").find("its size is not the manifest's"), std::string::npos);
  std::filesystem::remove(dir + "/state.json");
  EXPECT_NE(FirstProblem(folder / "r").find("state.json"), std::string::npos);
  std::filesystem::remove(dir + "/manifest.json");
  EXPECT_NE(FirstProblem(folder / "r").find("manifest.json"), std::string::npos);
}

TEST(Export, WritesWholeRolloutsOrRowsToTrainOn) {
  const Folder folder;
  Trajectories db = MakeRun(folder / "r", 3);
  const std::vector<Json> whole = Exported(folder / "r", {});
  ASSERT_EQ(whole.size(), 6u);
  EXPECT_EQ(whole[1]["name"], "g0.s1@v3");
  EXPECT_EQ(whole[1]["ids"], Json::parse("[4,-2,2147483647]"));
  EXPECT_EQ(whole[1]["row"]["answer"], 42);
  EXPECT_EQ(whole[1]["parts"][0]["name"], "sum");
  EXPECT_EQ(whole[1]["score"], 1.0);

  ExportOptions sft;
  sft.sft = true;
  sft.best_of = 1;
  const std::vector<Json> best = Exported(folder / "r", sft);
  ASSERT_EQ(best.size(), 3u);
  EXPECT_EQ(best[2].dump(),
            R"({"prompt":"17 + 25 =","completion":"42","score":1.0,"rollout":"g2.s1@v3"})");
  sft.where = "score < 0.5 AND granted_step = 7 AND grp > 0 -- a comment ends with its line";
  const std::vector<Json> worst = Exported(folder / "r", sft);
  ASSERT_EQ(worst.size(), 2u);
  EXPECT_EQ(worst[0]["completion"], "41");
  sft.where = "no_such_column = 1";
  EXPECT_NE(ErrorOf([&] { Exported(folder / "r", sft); }).find("no_such_column"),
            std::string::npos);
  sft.where = "1); DELETE FROM rollout; --";
  EXPECT_NE(ErrorOf([&] { Exported(folder / "r", sft); }), "");
  EXPECT_EQ(Exported(folder / "r", {}).size(), 6u);
}

TEST(Export, AConversationsCompletionIsAMessage) {
  const Folder folder;
  std::filesystem::create_directory(folder / "r");
  Trajectories db = Trajectories::Create(folder / "r/trajectories.db", SomeRun());
  for (const auto& [grp, prompt] :
       {std::pair(0, R"([{"role":"user","content":"hi"}])"), std::pair(1, "[1,2,3]")}) {
    GroupRow group = SomeGroup(grp);
    group.prompt_json = prompt;
    db.PutGroup(group);
    db.PutRollout(SomeRollout(grp, 0));
    db.PutScore(grp, 0, 0, 1, "ok", {});
  }
  ExportOptions sft;
  sft.sft = true;
  sft.where = "grp = 0";
  EXPECT_EQ(Exported(folder / "r", sft).at(0)["completion"].dump(),
            R"([{"role":"assistant","content":"42"}])");
  sft.where = "grp = 1";
  EXPECT_NE(ErrorOf([&] { Exported(folder / "r", sft); }).find("g1.s0@v3: its prompt is token ids"),
            std::string::npos);
}

TEST(Diff, FindsNothingInEqualRunsAndEveryChangedColumn) {
  const Folder folder;
  { MakeRun(folder / "a", 3); }
  { MakeRun(folder / "b", 3); }
  EXPECT_EQ(DiffRuns(folder / "a", folder / "b")["equal"], true);
  const std::pair<const char*, const char*> changes[] = {
      {"UPDATE rollout SET logp = zeroblob(12) WHERE grp = 1 AND sample = 1", "logp"},
      {"UPDATE rollout SET score = score + 1e-16 WHERE grp = 0 AND sample = 1", ""},
      {"UPDATE rollout SET score = 1.0000000000000002 WHERE grp = 0 AND sample = 1", "score"},
      {"UPDATE rollout SET text = '40' WHERE grp = 2 AND sample = 0", "text"},
      {"UPDATE prompt_group SET prompt_ids = zeroblob(12) WHERE grp = 2", "prompt_ids"},
      {"UPDATE rollout SET advantage = NULL, trained_step = NULL, state = 'scored' WHERE grp = 2 "
       "AND sample = 0",
       "advantage"},
      {"UPDATE rollout SET state = 'dropped', trained_step = NULL, reason = 'x' WHERE grp = 1 AND "
       "sample = 0",
       "only in the first"}};
  for (const auto& [sql, what] : changes) {
    std::filesystem::remove_all(folder / "b");
    { MakeRun(folder / "b", 3); }
    Damage(folder / "b/trajectories.db", sql);
    const Json report = DiffRuns(folder / "a", folder / "b");
    EXPECT_EQ(report["equal"], std::string(what).empty()) << sql;
    EXPECT_NE(report.dump().find(what), std::string::npos) << report.dump();
  }
  std::filesystem::remove_all(folder / "b");
  { MakeRun(folder / "b", 2); }
  const Json shorter = DiffRuns(folder / "a", folder / "b");
  EXPECT_EQ(shorter["rollouts"]["only_a"], 2);
  EXPECT_EQ(shorter["steps"]["only_a"], 1);
  EXPECT_NE(ErrorOf([&] { DiffRuns(folder / "a", folder / "none"); }), "");
}

TEST(Backup, IsWholeWhileTheRunIsWritten) {
  const Folder folder;
  Trajectories db = MakeRun(folder / "r", 20);
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> grp{1000};
  std::thread writer([&] {
    for (; !stop; ++grp) {
      db.Begin();
      db.PutGroup(SomeGroup(grp));
      db.PutRollout(SomeRollout(grp, 0));
      db.Commit();
    }
  });
  for (int copy = 0; copy < 5; ++copy) {
    // Each copy begins between two commits of a writer that is at work, however slow the machine.
    for (const std::uint64_t seen = grp; grp == seen;) std::this_thread::yield();
    const std::string name = "b" + std::to_string(copy);
    std::filesystem::create_directory(folder / name);
    const Json report = BackupRun(folder / "r", folder / (name + "/trajectories.db"));
    EXPECT_EQ(report["rollouts"].get<int>() - 40, report["groups"].get<int>() - 20);
    const Json verified = VerifyRun(folder / name);
    EXPECT_EQ(verified["ok"], true) << verified.dump();
    EXPECT_EQ(verified["rollouts"], report["rollouts"]);
  }
  stop = true;
  writer.join();
  EXPECT_NE(ErrorOf([&] {
              BackupRun(folder / "r", folder / "b0/trajectories.db");
            }).find("is there already"),
            std::string::npos);
  EXPECT_NE(ErrorOf([&] { BackupRun(folder / "r", folder / "none/x.db"); }), "");
}

TEST(Prune, RemovesOldGroupsAndKeepsWhatAResumeNeeds) {
  const Folder folder;
  {
    Trajectories db = MakeRun(folder / "r", 10, "step-x");
    db.PutGroup(SomeGroup(99));
    db.PutRollout(SomeRollout(99, 0));  // not trained yet
    EXPECT_NE(ErrorOf([&] {
                PruneRun(folder / "r", {3, false});
              }).find("another process writes"),
              std::string::npos);
  }
  const Json dry = PruneRun(folder / "r", {6, true});
  EXPECT_EQ(dry["groups"], 5);
  EXPECT_EQ(VerifyRun(folder / "r")["rollouts"], 21);
  const Json done = PruneRun(folder / "r", {6, false});
  EXPECT_EQ(done["groups"], 5);
  EXPECT_EQ(done["rollouts"], 10);
  EXPECT_EQ(done["parts"], 10);
  const Json left = VerifyRun(folder / "r");
  EXPECT_EQ(left["ok"], true) << left.dump();
  EXPECT_EQ(left["rollouts"], 11);
  EXPECT_EQ(left["steps"], 10);
  EXPECT_EQ(PruneRun(folder / "r", {6, false})["groups"], 0);
  EXPECT_NE(ErrorOf([&] {
              PruneRun(folder / "r", {12, false});
            }).find("give at most 11"),
            std::string::npos);
  EXPECT_EQ(VerifyRun(folder / "r")["rollouts"], 11);
  Trajectories again = Trajectories::Open(folder / "r/trajectories.db");
  EXPECT_EQ(again.Resume(10, std::nullopt), 1);
  EXPECT_EQ(again.LastGroup(), 99u);
}

TEST(Prune, GivesSpaceBack) {
  const Folder folder;
  { MakeRun(folder / "r", 300, "step-x"); }
  const Json done = PruneRun(folder / "r", {290, false});
  EXPECT_LT(done["bytes_after"].get<int>() * 2, done["bytes_before"].get<int>()) << done.dump();
}

TEST(Tools, RefuseForeignAndNewerFiles) {
  const Folder folder;
  const std::string path = folder / "r/trajectories.db";
  const auto all = [&] {
    std::vector<std::string> errors = {
        ErrorOf([&] { VerifyRun(folder / "r"); }), ErrorOf([&] { Exported(folder / "r", {}); }),
        ErrorOf([&] { DiffRuns(folder / "r", folder / "r"); }),
        ErrorOf([&] { BackupRun(folder / "r", folder / "out.db"); }), ErrorOf([&] {
          PruneRun(folder / "r", {1, false});
        })};
    EXPECT_FALSE(std::filesystem::exists(folder / "out.db"));
    EXPECT_FALSE(std::filesystem::exists(folder / "out.db.tmp"));
    return errors;
  };
  for (const std::string& error : all())
    EXPECT_NE(error.find("no such"), std::string::npos) << error;
  { MakeRun(folder / "r", 1); }
  Damage(path, "PRAGMA user_version = 99");
  for (const std::string& error : all())
    EXPECT_NE(error.find("schema 99 is newer"), std::string::npos) << error;
  Damage(path, "PRAGMA user_version = 1; PRAGMA application_id = 7");
  for (const std::string& error : all())
    EXPECT_NE(error.find("another program's"), std::string::npos) << error;
}

}  // namespace
}  // namespace temper::store
