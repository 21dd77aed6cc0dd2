#include "store/trajectories.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <cmath>
#include <fstream>

#include "configs/crc32c.h"
#include "configs/error.h"
#include "store/verify.h"
#include "tests/store/fixtures.h"

namespace temper::store {
namespace {

/// Another connection with full rights: what a user with the sqlite3 program may do.
void Meddle(const std::string& path, const std::string& sql) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  char* error = nullptr;
  EXPECT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &error), SQLITE_OK) << error;
  sqlite3_close(db);
}

template <typename Error>
std::string Refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

void ScoreAll(Trajectories& db, std::uint64_t grp, std::uint32_t samples) {
  for (std::uint32_t s = 0; s < samples; ++s) db.PutScore(grp, s, 0, 1.0, "ok", {});
}

TEST(Trajectories, GiveBackARolloutBitForBit) {
  const Folder folder;
  Trajectories db = Trajectories::Create(folder / "t.db", SomeRun());
  RolloutRow row = SomeRollout(41, 3);
  row.version = 17;
  row.version_last = 18;
  row.versions = {17, 17, 18};
  row.text = std::string("a\0b\xff", 4);
  row.seed = (std::uint64_t{1} << 63) - 1;
  EXPECT_TRUE(db.PutRollout(row));
  const std::vector<RolloutRow> rows = db.LiveRollouts(41);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].Name(), "g41.s3@v17");
  EXPECT_EQ(rows[0].ids, row.ids);
  EXPECT_EQ(rows[0].logp, row.logp);
  EXPECT_EQ(rows[0].versions, row.versions);
  EXPECT_EQ(rows[0].loss_mask, row.loss_mask);
  EXPECT_EQ(rows[0].text, row.text);
  EXPECT_EQ(rows[0].seed, row.seed);
  EXPECT_EQ(rows[0].received_ms, 5678);
  EXPECT_FALSE(rows[0].score);
  EXPECT_FALSE(rows[0].trained_step);
}

TEST(Trajectories, GiveBackAGroupAndTheLastOne) {
  const Folder folder;
  Trajectories db = Trajectories::Create(folder / "t.db", SomeRun());
  EXPECT_FALSE(db.LastGroup());
  db.PutGroup(SomeGroup(0));
  GroupRow again = SomeGroup(0);
  again.attempt = 1;
  db.PutGroup(again);
  EXPECT_EQ(db.LastGroup(), 0u);
  ASSERT_TRUE(db.Group(0));
  EXPECT_EQ(db.Group(0)->attempt, 1);
  EXPECT_EQ(db.Group(0)->prompt_ids, SomeGroup(0).prompt_ids);
  EXPECT_EQ(db.Group(0)->row_json, SomeGroup(0).row_json);
  EXPECT_FALSE(db.Group(1));
}

TEST(Trajectories, NameARolloutOfALaterAttemptByIt) {
  RolloutRow row = SomeRollout(41, 3, 1);
  EXPECT_EQ(row.Name(), "g41.s3.a1@v3");
}

TEST(Trajectories, TrainOnlyTheFirstStoredAttempt) {
  const Folder folder;
  Trajectories db = Trajectories::Create(folder / "t.db", SomeRun());
  EXPECT_TRUE(db.PutRollout(SomeRollout(1, 0, 0)));
  EXPECT_FALSE(db.PutRollout(SomeRollout(1, 0, 0)));  // the very row: nothing changes
  EXPECT_FALSE(db.PutRollout(SomeRollout(1, 0, 1)));
  EXPECT_EQ(db.LiveRollouts(1).size(), 1u);
  const auto rows = Rows(folder / "t.db", "SELECT attempt, state, reason FROM rollout ORDER BY 1");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].dump(), R"({"attempt":0,"state":"received","reason":""})");
  EXPECT_EQ(rows[1].dump(), R"({"attempt":1,"state":"dropped","reason":"duplicate"})");
}

TEST(Trajectories, TakeALaterAttemptWhenTheEarlierWasDropped) {
  const Folder folder;
  Trajectories db = Trajectories::Create(folder / "t.db", SomeRun());
  EXPECT_TRUE(db.PutRollout(SomeRollout(1, 0, 0)));
  db.Drop(1, 0, 0, "stale");
  EXPECT_TRUE(db.PutRollout(SomeRollout(1, 0, 1)));
  EXPECT_FALSE(db.PutRollout(SomeRollout(1, 0, 0)));
  ASSERT_EQ(db.LiveRollouts(1).size(), 1u);
  EXPECT_EQ(db.LiveRollouts(1)[0].attempt, 1);
}

TEST(Trajectories, StoreAScoreWithItsPartsOnceAndNanAsNull) {
  const Folder folder;
  Trajectories db = Trajectories::Create(folder / "t.db", SomeRun());
  db.PutRollout(SomeRollout(1, 0));
  RewardPart part{"sum", std::nan(""), 0.5, "invalid_return", "score is NaN", 3, "ab", 17};
  db.PutScore(1, 0, 0, std::nan(""), "invalid_return", {part});
  db.PutScore(1, 0, 0, 1.0, "ok", {});  // a late second answer
  const RolloutRow row = db.LiveRollouts(1)[0];
  EXPECT_EQ(row.state, "scored");
  EXPECT_FALSE(row.score);
  EXPECT_EQ(row.status, "invalid_return");
  const auto parts = Rows(folder / "t.db", "SELECT * FROM reward_part");
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].dump(),
            R"({"grp":1,"sample":0,"attempt":0,"name":"sum","value":null,"weight":0.5,)"
            R"("status":"invalid_return","message":"score is NaN","line":3,)"
            R"("script_sha256":"ab","micros":17})");
}

TEST(Trajectories, StoreAStepWithItsSamplesAndMetricsTogether) {
  const Folder folder;
  Trajectories db = Trajectories::Create(folder / "t.db", SomeRun());
  for (std::uint32_t s = 0; s < 2; ++s) db.PutRollout(SomeRollout(1, s));
  ScoreAll(db, 1, 2);
  db.PutStep({1, 0, 0.5, 0.25, 1.5, ""}, {{1, 0, 0, 0.7, 0}, {1, 1, 0, -0.7, 2}},
             Json{{"loss", 0.5}, {"note", "text"}, {"n", 3}});
  db.SetCheckpoint(1, "step-000001");
  const auto rows = db.LiveRollouts(1);
  EXPECT_EQ(rows[1].state, "trained");
  EXPECT_EQ(rows[1].advantage, -0.7);
  EXPECT_EQ(rows[1].trained_step, 1);
  EXPECT_EQ(rows[1].lag, 2);
  EXPECT_EQ(Rows(folder / "t.db", "SELECT count(*) n FROM metric")[0]["n"], 2);
  EXPECT_EQ(Rows(folder / "t.db", "SELECT * FROM step")[0].dump(),
            R"({"step":1,"version":0,"loss":0.5,"reward_mean":0.25,"seconds":1.5,)"
            R"("checkpoint":"step-000001"})");
}

TEST(Trajectories, LeaveNothingOfAStepThatTrainsAnUnknownSample) {
  const Folder folder;
  Trajectories db = Trajectories::Create(folder / "t.db", SomeRun());
  db.PutRollout(SomeRollout(1, 0));
  ScoreAll(db, 1, 1);
  EXPECT_THROW(db.PutStep({1, 0, 0, 0, 0, ""}, {{1, 0, 0, 1, 0}, {9, 9, 0, 1, 0}}, Json()),
               std::logic_error);
  EXPECT_TRUE(Rows(folder / "t.db", "SELECT * FROM step").empty());
  EXPECT_EQ(db.LiveRollouts(1)[0].state, "scored");
}

TEST(Trajectories, RollBackEverythingSinceBegin) {
  const Folder folder;
  Trajectories db = Trajectories::Create(folder / "t.db", SomeRun());
  db.Begin();
  EXPECT_THROW(db.Begin(), std::logic_error);
  db.PutRollout(SomeRollout(1, 0));
  db.PutGroup(SomeGroup(1));
  db.Rollback();
  EXPECT_TRUE(db.LiveRollouts(1).empty());
  EXPECT_FALSE(db.LastGroup());
}

TEST(Trajectories, ResumeOneSurvivingHistory) {
  const Folder folder;
  Trajectories db = Trajectories::Create(folder / "t.db", SomeRun());
  for (std::uint32_t step = 1; step <= 3; ++step) {
    RolloutRow row = SomeRollout(step, 0);
    row.version = row.version_last = step - 1;
    db.PutRollout(row);
    ScoreAll(db, step, 1);
    db.PutStep({step, step - 1, 0, 0, 0, ""}, {{step, 0, 0, 1.0, 0}}, Json{{"loss", 1.0}});
  }
  RolloutRow ahead = SomeRollout(4, 0);
  ahead.version = 1;
  ahead.version_last = 2;  // its last tokens came from weights that are gone
  db.PutRollout(ahead);
  EXPECT_EQ(db.Resume(1, std::nullopt), 1);
  EXPECT_EQ(db.LiveRollouts(1)[0].state, "trained");
  const RolloutRow back = db.LiveRollouts(3)[0];
  EXPECT_EQ(back.state, "scored");
  EXPECT_FALSE(back.advantage || back.trained_step || back.lag);
  EXPECT_EQ(Rows(folder / "t.db", "SELECT max(step) s FROM step")[0]["s"], 1);
  EXPECT_EQ(Rows(folder / "t.db", "SELECT max(step) s FROM metric")[0]["s"], 1);

  EXPECT_EQ(db.Resume(1, 1), 2);
  EXPECT_EQ(db.LiveRollouts(1).size(), 1u);
  EXPECT_EQ(db.LiveRollouts(2).size(), 1u);  // version 1 is kept
  EXPECT_TRUE(db.LiveRollouts(3).empty());   // version 2 is not
  EXPECT_TRUE(db.LiveRollouts(4).empty());
  EXPECT_EQ(Rows(folder / "t.db", "SELECT DISTINCT reason r FROM rollout WHERE state='dropped'")
                .at(0)["r"],
            "version_lost");
  EXPECT_EQ(db.incarnation(), 2);
}

TEST(Trajectories, ResumeTakesBackWhatALostBatchPassedOver) {
  const Folder folder;
  Trajectories db = Trajectories::Create(folder / "t.db", SomeRun());
  for (std::uint32_t grp = 1; grp <= 3; ++grp) {
    db.PutRollout(SomeRollout(grp, 0));
    ScoreAll(db, grp, 1);
    db.Drop(grp, 0, 0, grp == 3 ? "late" : "zero_std");
  }
  db.Resume(1, std::nullopt);
  EXPECT_TRUE(db.LiveRollouts(2).empty());
  db.Resume(1, std::nullopt, 2);
  EXPECT_TRUE(db.LiveRollouts(1).empty());  // of a batch that survives
  ASSERT_EQ(db.LiveRollouts(2).size(), 1u);
  EXPECT_EQ(db.LiveRollouts(2)[0].state, "scored");
  EXPECT_EQ(db.LiveRollouts(2)[0].reason, "");
  EXPECT_TRUE(db.LiveRollouts(3).empty());
}

TEST(Trajectories, RefuseArraysOfDifferentLength) {
  const Folder folder;
  Trajectories db = Trajectories::Create(folder / "t.db", SomeRun());
  RolloutRow row = SomeRollout(1, 0);
  row.logp.pop_back();
  EXPECT_THROW(db.PutRollout(row), std::logic_error);
}

TEST(Trajectories, SeeAFlippedBitInAStoredRow) {
  const Folder folder;
  {
    Trajectories db = Trajectories::Create(folder / "t.db", SomeRun());
    db.PutRollout(SomeRollout(1, 0));
  }
  Meddle(folder / "t.db", "UPDATE rollout SET ids = x'050000000000000000000000'");
  Trajectories db = Trajectories::Open(folder / "t.db");
  const std::string said = Refusal<MachineError>([&] { db.LiveRollouts(1); });
  EXPECT_NE(said.find("g1.s0@v3: the stored checksum differs"), std::string::npos) << said;
}

TEST(Trajectories, CarryTheIdentityThatDesignFixes) {
  const Folder folder;
  Trajectories::Create(folder / "t.db", SomeRun());
  std::ifstream file(folder / "t.db", std::ios::binary);
  std::string header(100, '\0');
  file.read(header.data(), 100);
  EXPECT_EQ(header.substr(68, 4), "TMPR");
  EXPECT_EQ(header.substr(60, 4), std::string("\0\0\0\2", 4));
  EXPECT_EQ(header.substr(16, 2), std::string("\x20\0", 2));  // pages of 8192 bytes
  EXPECT_EQ(Rows(folder / "t.db", "SELECT * FROM run")[0].dump(),
            R"({"name":"tiny","temper_version":"0.1.0","numerics":"strict","config_json":"{}",)"
            R"("incarnation":0,"created_ms":1234})");
}

TEST(Trajectories, RefuseToOverwriteARun) {
  const Folder folder;
  Trajectories::Create(folder / "t.db", SomeRun());
  EXPECT_THROW(Trajectories::Create(folder / "t.db", SomeRun()), UserError);
}

TEST(Trajectories, RefuseForeignMissingAndNewerFiles) {
  const Folder folder;
  EXPECT_THROW(Trajectories::Open(folder / "none.db"), UserError);
  EXPECT_THROW(Reader(folder / "none.db"), UserError);

  Meddle(folder / "foreign.db", "CREATE TABLE t (x); PRAGMA application_id = 7");
  EXPECT_THROW(Trajectories::Open(folder / "foreign.db"), UserError);
  EXPECT_THROW(Reader(folder / "foreign.db"), UserError);

  std::ofstream(folder / "text.db") << std::string(20000, 'x');
  EXPECT_THROW(Trajectories::Open(folder / "text.db"), UserError);
  EXPECT_THROW(Reader(folder / "text.db"), UserError);

  Trajectories::Create(folder / "newer.db", SomeRun());
  Meddle(folder / "newer.db", "PRAGMA user_version = 3");
  const std::string said = Refusal<UserError>([&] { Trajectories::Open(folder / "newer.db"); });
  EXPECT_NE(said.find("schema 3 is newer"), std::string::npos) << said;
}

TEST(Trajectories, ADatabaseOfTheFirstSchemaIsReadAndGetsWhatItLacks) {
  const Folder folder;
  {
    Trajectories db = Trajectories::Create(folder / "trajectories.db", SomeRun());
    db.PutGroup(SomeGroup(1));
    db.PutRollout(SomeRollout(1, 0));
  }
  Meddle(folder / "trajectories.db",
         "ALTER TABLE rollout DROP COLUMN kept; PRAGMA user_version = 1");
  EXPECT_EQ(VerifyRun(folder.path())["problems"], Json::array());
  {
    Trajectories db = Trajectories::Open(folder / "trajectories.db");
    RolloutRow row = SomeRollout(1, 1);
    row.experts = {3, 7, 65535};
    row.kept = {2, -1, 4};
    db.PutRollout(row);
    const auto rows = db.LiveRollouts(1);
    ASSERT_EQ(rows.size(), 2u);
    EXPECT_TRUE(rows[0].kept.empty());
    EXPECT_EQ(rows[1].experts, row.experts);
    EXPECT_EQ(rows[1].kept, row.kept);
  }
  EXPECT_EQ(VerifyRun(folder.path())["problems"], Json::array());
  Meddle(folder / "trajectories.db", "UPDATE rollout SET experts = x'0000' WHERE sample = 1");
  EXPECT_EQ(VerifyRun(folder.path())["problems"].size(), 1u);
}

// A file from elsewhere: what stands under our names must be our tables, for writer and reader.
TEST(Trajectories, RefuseWhatPosesAsATable) {
  struct Trick {
    const char *sql, *said;
  };
  const Trick tricks[] = {
      {"ALTER TABLE rollout RENAME TO kept; CREATE VIEW rollout AS SELECT * FROM kept",
       "table \"rollout\" is a view; use only the database that a run has written"},
      {"DROP TABLE metric; CREATE VIRTUAL TABLE metric USING fts5(step, name, value)",
       "table \"metric\" is not as temper makes it; use only the database that a run has written"},
      {"DROP TABLE metric; CREATE TABLE metric (step, name, value AS (zeroblob(1 << 30)))",
       "table \"metric\" is not as temper makes it; use only the database that a run has written"},
      {"DROP TABLE step", "table \"step\" is missing; this is not a run's whole database"},
      {"CREATE TRIGGER t AFTER INSERT ON rollout BEGIN DELETE FROM step; END",
       "trigger \"t\": a run's database has none; drop it, if you know what it does"},
      {"PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', "
       "'DEFAULT (zeroblob(9))') WHERE name = 'run'",
       "table \"run\" is not as temper makes it; use only the database that a run has written"},
  };
  int number = 0;
  for (const Trick& trick : tricks) {
    const Folder folder;
    const std::string path = folder / "t.db";
    Trajectories::Create(path, SomeRun());
    Meddle(path, trick.sql);
    const std::string want = path + ": " + trick.said;
    EXPECT_EQ(Refusal<UserError>([&] { Trajectories::Open(path); }), want) << ++number;
    EXPECT_EQ(Refusal<UserError>([&] { Reader reader(path); }), want);
  }
  const Folder folder;  // a reader's own view and index beside ours harm nobody
  Trajectories::Create(folder / "t.db", SomeRun());
  Meddle(folder / "t.db", "CREATE VIEW mine AS SELECT 1; CREATE INDEX i ON rollout (actor)");
  Trajectories::Open(folder / "t.db").PutRollout(SomeRollout(1, 0));
  EXPECT_EQ(Rows(folder / "t.db", "SELECT * FROM rollout").size(), 1u);
}

TEST(Trajectories, RefuseBrokenPagesBeforeTheyWrite) {
  const Folder folder;
  const std::string path = folder / "t.db";
  {
    Trajectories db = Trajectories::Create(path, SomeRun());
    for (std::uint64_t g = 1; g < 400; ++g) db.PutRollout(SomeRollout(g, 0));
  }
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(0, std::ios::end);
  for (std::int64_t at = 12 * 8192; at + 64 < file.tellp(); at += 8192) {
    const auto size = file.tellp();
    file.seekp(at);
    file << std::string(64, '\xff');
    file.seekp(size);
  }
  file.close();
  const std::string said = Refusal<MachineError>([&] { Trajectories::Open(path); });
  EXPECT_EQ(said.rfind(path + ": ", 0), 0u) << said;
  EXPECT_EQ(said.find('\n'), said.npos) << said;
}

TEST(Trajectories, HaveOneWriterOnly) {
  const Folder folder;
  Trajectories db = Trajectories::Create(folder / "t.db", SomeRun());
  EXPECT_THROW(Trajectories::Open(folder / "t.db"), MachineError);
  db.PutRollout(SomeRollout(1, 0));  // and the refused one did no harm
  EXPECT_EQ(Rows(folder / "t.db", "SELECT * FROM rollout").size(), 1u);
}

}  // namespace
}  // namespace temper::store
