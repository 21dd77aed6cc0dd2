#include "store/history.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include "configs/error.h"
#include "tests/store/fixtures.h"

namespace temper::store {
namespace {

/// Two batches of two groups of two samples; g1.s1 is dropped for its reward, g2.s0 has a second
/// attempt that came too late.
class HistoryTest : public testing::Test {
 protected:
  void Fill(bool dynamic) {
    Trajectories::RunInfo run = SomeRun();
    run.config_json = Json{{"grpo",
                            {{"groups_per_step", 2},
                             {"num_generations", 2},
                             {"num_iterations", 1},
                             {"mini_batches", 2},
                             {"dynamic_sampling", dynamic}}}}
                          .dump();
    Trajectories db = Trajectories::Create(folder_ / "trajectories.db", run);
    db.Begin();
    for (std::uint64_t grp = 0; grp < 5; ++grp) {
      db.PutGroup(SomeGroup(grp));
      for (std::uint32_t s = 0; s < 2; ++s) {
        db.PutRollout(SomeRollout(grp, s));
        const bool fails = grp == 1 && s == 1;
        db.PutScore(grp, s, 0, 0.5 * s, fails ? "timeout" : "ok",
                    {{"length", 2.0, 1.0, "ok", "", 0, "", 7}});
        if (fails) db.Drop(grp, s, 0, "timeout");
      }
    }
    db.PutRollout(SomeRollout(2, 0, 1));
    for (std::int64_t step = 1; step <= 4; ++step) {
      StepRow row;
      row.step = step;
      std::vector<TrainedSample> trained;
      if (step == 2) trained = {{0, 0, 0, 0.5, 0}, {0, 1, 0, 0.5, 0}, {1, 0, 0, 0.5, 0}};
      if (step == 4) {
        // With dynamic sampling a group was passed over: g3.
        const std::uint64_t last = dynamic ? 4 : 3;
        for (const std::uint64_t grp : {std::uint64_t{2}, last}) {
          for (std::uint32_t s = 0; s < 2; ++s) trained.push_back({grp, s, 0, 0.5, 0});
        }
      }
      db.PutStep(row, trained, Json::object());
    }
    db.Commit();
  }

  Folder folder_;
};

TEST_F(HistoryTest, GivesBatchesAsTheyWereTrained) {
  Fill(/*dynamic=*/false);
  const History history(folder_.path());
  EXPECT_EQ(history.batches(), 2);
  EXPECT_EQ(history.groups(), 2);
  EXPECT_EQ(history.group_size(), 2);
  const auto first = history.Batch(1), second = history.Batch(2);
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(first[1].row.grp, 1u);
  ASSERT_EQ(first[1].live.size(), 2u);  // one dropped for its reward keeps its place
  EXPECT_EQ(first[1].live[1].state, "dropped");
  EXPECT_EQ(first[1].live[1].status, "timeout");
  EXPECT_EQ(first[0].parts[1][0].name, "length");
  ASSERT_EQ(second[0].live.size(), 2u);  // not the duplicate
  EXPECT_EQ(second[0].live[0].attempt, 0);
  EXPECT_EQ(second[1].row.grp, 3u);
}

TEST_F(HistoryTest, LeavesOutWhatDynamicSamplingPassedOver) {
  Fill(/*dynamic=*/true);
  const auto second = History(folder_.path()).Batch(2);
  ASSERT_EQ(second.size(), 2u);
  EXPECT_EQ(second[0].row.grp, 2u);
  EXPECT_EQ(second[1].row.grp, 4u);
}

TEST_F(HistoryTest, SaysWhichStepIsNotThere) {
  Fill(/*dynamic=*/false);
  const History history(folder_.path());
  try {
    history.Batch(3);
    FAIL() << "a batch that was never trained";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("step 6: it was not trained"), std::string::npos)
        << error.what();
  }
  EXPECT_THROW(History("/nowhere"), UserError);
}

TEST_F(HistoryTest, RefusesARowThatIsNotWhatWasWritten) {
  Fill(/*dynamic=*/false);
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((folder_ / "trajectories.db").c_str(), &db), SQLITE_OK);
  sqlite3_exec(db, "UPDATE rollout SET text = 'other' WHERE grp = 0 AND sample = 0", nullptr,
               nullptr, nullptr);
  sqlite3_close(db);
  EXPECT_THROW(History(folder_.path()).Batch(1), MachineError);
}

}  // namespace
}  // namespace temper::store
