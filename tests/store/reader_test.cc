#include <gtest/gtest.h>

#include "configs/error.h"
#include "store/trajectories.h"
#include "tests/store/fixtures.h"

namespace temper::store {
namespace {

class ReaderTest : public testing::Test {
 protected:
  ReaderTest() : db_(Trajectories::Create(folder_ / "t.db", SomeRun())) {
    RolloutRow row = SomeRollout(1, 0);
    row.versions = {3, 3, 4000000000u};
    db_.PutRollout(row);
    db_.PutGroup(SomeGroup(1));
  }
  void ExpectRefused(const std::string& sql) {
    EXPECT_THROW(Reader(folder_ / "t.db").Query(sql, [](const Json&) {}), UserError) << sql;
  }

  Folder folder_;
  Trajectories db_;
};

TEST_F(ReaderTest, GivesTheStableBlobsAsNumberArraysUnderAnyAlias) {
  const auto rows = Rows(folder_ / "t.db",
                         "SELECT ids AS a, logp AS b, versions AS c, loss_mask, experts, "
                         "prompt_ids FROM rollout JOIN prompt_group USING (grp)");
  ASSERT_EQ(rows.size(), 1u);
  const float tiny = -3e-38f;
  EXPECT_EQ(rows[0]["a"], Json({4, -2, 2147483647}));
  EXPECT_EQ(rows[0]["b"], Json({-0.25, -1.5, static_cast<double>(tiny)}));
  EXPECT_EQ(rows[0]["c"], Json({3, 3, 4000000000u}));
  EXPECT_EQ(rows[0]["loss_mask"], Json({1, 0, 1}));
  EXPECT_TRUE(rows[0]["experts"].is_null());
  EXPECT_EQ(rows[0]["prompt_ids"], Json({1, 17, 25}));
}

TEST_F(ReaderTest, KeepsBothOfTwoColumnsWithOneName) {
  EXPECT_EQ(Rows(folder_ / "t.db", "SELECT 1 AS x, 2 AS x")[0].dump(), R"({"x":1,"x:2":2})");
}

TEST_F(ReaderTest, GivesTextThatJsonCanCarry) {
  RolloutRow row = SomeRollout(2, 0);
  row.text = "a\xff\"b";
  db_.PutRollout(row);
  EXPECT_EQ(Rows(folder_ / "t.db", "SELECT text FROM rollout WHERE grp = 2")[0]["text"],
            "a\xEF\xBF\xBD\"b");
}

TEST_F(ReaderTest, SeesWhatAWriterCommittedAndNothingElse) {
  db_.Begin();
  db_.PutRollout(SomeRollout(5, 0));
  const std::string sql = "SELECT * FROM rollout WHERE grp = 5";
  EXPECT_TRUE(Rows(folder_ / "t.db", sql).empty());
  db_.Commit();
  EXPECT_EQ(Rows(folder_ / "t.db", sql).size(), 1u);
}

TEST_F(ReaderTest, AllowsCommentsCommonTablesAndSchemaQuestions) {
  EXPECT_EQ(Rows(folder_ / "t.db", "SELECT 1; -- done\n ; /* */").size(), 1u);
  EXPECT_EQ(Rows(folder_ / "t.db",
                 "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3) "
                 "SELECT i FROM n")
                .size(),
            3u);
  EXPECT_EQ(Rows(folder_ / "t.db", "PRAGMA table_info(step)").size(), 6u);
}

TEST_F(ReaderTest, RefusesAnythingButOneReadingStatement) {
  ExpectRefused("");
  ExpectRefused("-- nothing");
  ExpectRefused("SELEC 1");
  ExpectRefused("SELECT nothing FROM rollout");
  ExpectRefused("DELETE FROM rollout");
  ExpectRefused("UPDATE run SET name = 'x' RETURNING name");
  ExpectRefused("SELECT 1; SELECT 2");
  ExpectRefused("SELECT 1; DELETE FROM rollout");
  ExpectRefused("ATTACH '/tmp/temper_attached.db' AS other");
  ExpectRefused("VACUUM INTO '/tmp/temper_vacuumed.db'");
  ExpectRefused("PRAGMA query_only = OFF");
  ExpectRefused("PRAGMA journal_mode = DELETE");
  ExpectRefused("BEGIN");
  ExpectRefused("SELECT load_extension('x')");
  ExpectRefused("CREATE TEMP TABLE x (y)");
  ExpectRefused("SELECT json('{')");  // fails only while it runs
  EXPECT_EQ(db_.LiveRollouts(1).size(), 1u);
}

}  // namespace
}  // namespace temper::store
