#include "learner/core/stored_batches.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "configs/error.h"
#include "tests/store/fixtures.h"

namespace temper::learner {
namespace {

/// A run of three steps with two groups of two samples, and the settings of one that trains from
/// it.
class StoredBatchesTest : public testing::Test {
 protected:
  StoredBatchesTest() {
    std::filesystem::create_directory(folder_ / "old");
    std::filesystem::create_directory(folder_ / "new");
    config_.name = "again";
    config_.output_dir = folder_ / "new";
    config_.grpo.groups_per_step = 2;
    config_.grpo.num_generations = 2;
    config_.grpo.max_steps = 3;
    store::Trajectories::RunInfo run = store::SomeRun();
    run.config_json = configs::ToJson(config_).dump();
    auto db = store::Trajectories::Create(folder_ / "old/trajectories.db", run);
    db.Begin();
    for (std::uint64_t grp = 0; grp < 6; ++grp) {
      db.PutGroup(store::SomeGroup(grp));
      store::StepRow step;
      step.step = static_cast<std::int64_t>(grp / 2) + 1;
      std::vector<store::TrainedSample> trained;
      for (std::uint32_t s = 0; s < 2; ++s) {
        store::RolloutRow row = store::SomeRollout(grp, s);
        row.ids = {static_cast<std::int32_t>(grp), 7, 9};
        db.PutRollout(row);
        db.PutScore(grp, s, 0, 0.25 * s, "ok", {});
        trained.push_back({grp, s, 0, 0.5, 1});
      }
      db.PutStep(step, trained, Json::object());
    }
    db.Commit();
  }

  std::unique_ptr<StoredBatches> Open(std::optional<std::int64_t> resume = std::nullopt) const {
    return std::make_unique<StoredBatches>(
        StoredBatches::Options{config_, folder_ / "old", "id", 90, resume});
  }
  std::string Refusal() const {
    try {
      Open();
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  }

  store::Folder folder_;
  configs::Config config_;
};

TEST_F(StoredBatchesTest, GivesWhatWasTrainedWithoutTheMarksOfThatTraining) {
  const auto batches = Open();
  for (std::int64_t step = 1; step <= 3; ++step) {
    const Batch batch = batches->NextBatch(step);
    ASSERT_EQ(batch.groups.size(), 2u);
    const ScoredGroup& group = batch.groups[1];
    EXPECT_EQ(group.grp, static_cast<std::uint64_t>(2 * step - 1));
    EXPECT_EQ(group.prompt_ids, store::SomeGroup(0).prompt_ids);
    ASSERT_EQ(group.samples.size(), 2u);
    EXPECT_EQ(group.samples[1].state, "scored");
    EXPECT_EQ(group.samples[1].score, 0.25);
    EXPECT_EQ(group.samples[1].logp, store::SomeRollout(0, 0).logp);
    EXPECT_FALSE(group.samples[1].advantage || group.samples[1].trained_step);
    EXPECT_EQ(batches->TakeStats().completion_tokens, 12u);
  }
}

TEST_F(StoredBatchesTest, KeepsCopiesInADatabaseOfItsOwnAndGoesOnThere) {
  const auto commit = [](StoredBatches& batches, std::int64_t number) {
    const Batch batch = batches.NextBatch(number);
    store::StepRow step;
    step.step = number;
    std::vector<store::TrainedSample> trained;
    for (const ScoredGroup& group : batch.groups) {
      for (const auto& row : group.samples) trained.push_back({row.grp, row.sample, 0, 1.0, 0});
    }
    batches.CommitStep(step, trained, Json::object());
  };
  {
    const auto batches = Open();
    commit(*batches, 1);
    commit(*batches, 2);
  }
  // Killed behind step 2, the newest checkpoint is step 1's.
  CheckFrom(config_.output_dir, folder_ / "old");
  const auto batches = Open(1);
  commit(*batches, 2);
  commit(*batches, 3);
  const auto rows = store::Rows(folder_ / "new/trajectories.db",
                                "SELECT trained_step AS step, count(*) AS n FROM rollout WHERE "
                                "state = 'trained' GROUP BY 1");
  ASSERT_EQ(rows.size(), 3u);
  for (const Json& row : rows) EXPECT_EQ(row["n"], 4);
}

TEST_F(StoredBatchesTest, RefusesWhatTheStoredRunCannotGive) {
  config_.grpo.num_generations = 4;
  EXPECT_NE(Refusal().find("2 groups of 2"), std::string::npos);
  config_.grpo.num_generations = 2;
  config_.grpo.max_steps = 4;
  EXPECT_NE(Refusal().find("it trained 3 batches"), std::string::npos);
  config_.grpo.max_steps = 3;
  config_.grpo.eval_steps = 1;
  EXPECT_NE(Refusal().find("grpo.eval_steps"), std::string::npos);
  config_.grpo.eval_steps = 0;
  EXPECT_EQ(Refusal(), "");
}

TEST_F(StoredBatchesTest, RefusesIdsThatTheTokenizerDoesNotHave) {
  const StoredBatches::Options options{config_, folder_ / "old", "id", 9, std::nullopt};
  StoredBatches batches(options);
  EXPECT_THROW(batches.NextBatch(1), UserError);
}

TEST_F(StoredBatchesTest, AResumedRunKeepsItsSource) {
  Open();
  CheckFrom(config_.output_dir, folder_ / "old");
  EXPECT_THROW(CheckFrom(config_.output_dir, ""), UserError);
  EXPECT_THROW(CheckFrom(config_.output_dir, folder_ / "other"), UserError);
  EXPECT_THROW(CheckFrom(folder_ / "old", folder_ / "other"), UserError);
  CheckFrom(folder_ / "old", "");
}

}  // namespace
}  // namespace temper::learner
