#include "learner/core/run_folder.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "configs/error.h"
#include "tests/engine/temp_dir.h"

namespace temper::learner {
namespace {

namespace fs = std::filesystem;

class RunFolderTest : public testing::Test {
 protected:
  RunFolderTest() { config_.output_dir = (fs::path(dir_.path()) / "run").string(); }
  TempDir dir_;
  configs::Config config_;
};

TEST_F(RunFolderTest, BeginsWhereNothingIsAndWhereOnlyLogsAre) {
  BeginRun(config_);
  EXPECT_TRUE(fs::exists(config_.output_dir + "/config.json"));
  EXPECT_TRUE(fs::is_directory(config_.output_dir + "/checkpoints"));
  fs::remove_all(config_.output_dir);
  fs::create_directories(config_.output_dir + "/logs");
  EXPECT_NO_THROW(BeginRun(config_));
}

TEST_F(RunFolderTest, RefusesAFolderThatIsThereAndTouchesNothing) {
  fs::create_directories(config_.output_dir);
  EXPECT_THROW(BeginRun(config_), UserError);
  EXPECT_TRUE(fs::is_empty(config_.output_dir));
}

TEST_F(RunFolderTest, ListsWhatDiffersOnResumeUnlessAllowed) {
  BeginRun(config_);
  const Json before = configs::ToJson(config_);
  config_.sft.max_steps += 1;
  config_.resume = true;
  try {
    ContinueRun(config_, before);
    FAIL() << "a changed max_steps was taken";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("sft.max_steps"), std::string::npos) << error.what();
  }
  config_.resume_allow = {"sft.max_steps"};
  EXPECT_NO_THROW(ContinueRun(config_, before));
}

}  // namespace
}  // namespace temper::learner
