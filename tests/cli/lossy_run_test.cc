// A seeded sample of `faults protocol`, with the controls that must fail.
#include "bench/lossy_run.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

namespace temper::bench {
namespace {

class LossyRunTest : public testing::Test {
 protected:
  LossyReport RunWith(const LossyOptions& options) const {
    std::string folder = testing::TempDir() + "temper_lossy_XXXXXX";
    if (mkdtemp(folder.data()) == nullptr) return {};
    testing::internal::CaptureStderr();  // every actor says that it joined
    const LossyReport report = LossyRun(options, folder);
    testing::internal::GetCapturedStderr();
    std::filesystem::remove_all(folder);
    return report;
  }
  static LossyOptions Small() {
    LossyOptions options;
    options.rollouts = 3000;
    options.groups_per_step = 25;
    options.actors = 4;
    options.learner_kills = 5;
    return options;
  }
};

TEST_F(LossyRunTest, EveryRolloutIsTrainedOnceWhateverIsLostRepeatedCutOrKilled) {
  LossyOptions options = Small();
  const LossyReport faulty = RunWith(options);
  EXPECT_EQ(faulty.stuck, "");
  EXPECT_EQ(faulty.rows, options.rollouts);
  EXPECT_EQ(faulty.extra, 0u);
  EXPECT_EQ(faulty.missing, 0u);
  EXPECT_EQ(faulty.lost, 0u);
  EXPECT_GT(faulty.drops, 300u);
  EXPECT_GT(faulty.learner_kills, 3u);
  EXPECT_GT(faulty.actor_kills, 0u);
  // The control of de-duplication: a row a message would be too many.
  EXPECT_GT(faulty.received, options.rollouts + 100);
  options.drop = options.repeat = options.cuts_per_minute = options.actor_kills_per_minute = 0;
  options.learner_kills = 0;
  EXPECT_EQ(RunWith(options).hash, faulty.hash);  // bit for bit the run that nothing happened to
}

TEST_F(LossyRunTest, AnAsynchronousRunLosesNothingEither) {
  LossyOptions options = Small();
  options.max_lag = 3;
  options.seed = 2;
  const LossyReport report = RunWith(options);
  EXPECT_EQ(report.stuck, "");
  EXPECT_EQ(report.rows, options.rollouts);
  EXPECT_EQ(report.extra + report.missing + report.lost, 0u);
}

TEST_F(LossyRunTest, ControlAcknowledgingBeforeTheCommitLosesRollouts) {
  LossyOptions options = Small();
  options.acknowledge_early = true;
  options.learner_kills = 20;
  EXPECT_GT(RunWith(options).lost, 0u);
}

TEST_F(LossyRunTest, ControlAnActorThatNeverRepeatsLeavesHoles) {
  LossyOptions options = Small();
  options.never_repeat = true;
  options.cuts_per_minute = options.actor_kills_per_minute = 0;
  options.learner_kills = 0;
  const LossyReport report = RunWith(options);
  EXPECT_NE(report.stuck, "");
  EXPECT_GT(report.missing, 0u);
}

}  // namespace
}  // namespace temper::bench
