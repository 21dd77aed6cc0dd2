// The whole story at the size of a test run: a fresh model learns to reverse words, SFT first, then
// GRPO.
#include "tests/cli/programs.h"

namespace temper::cli {
namespace {

TEST_F(ProgramTest, ReverseTextLearnsToTheBarAndActorAndLearnerNeverDisagree) {
  const Ran ran =
      Temper({"quickstart", "--task", "reverse-text", "--seed", "1", "--out", Path("reverse")});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json last = ran.Lines().back();
  // Accuracy here is the mean share of the longest common subsequence.
  EXPECT_LT(last["accuracy_init"].get<double>(), 0.2);
  EXPECT_GE(last["accuracy_grpo"].get<double>(), 0.9) << last.dump();
  EXPECT_GT(last["sampled_grpo"].get<double>(), last["sampled_sft"].get<double>()) << last.dump();
  std::istringstream metrics(Read(Path("reverse/grpo/metrics.jsonl")));
  int steps = 0;
  for (std::string line; std::getline(metrics, line); ++steps) {
    const Json step = configs::ParseJson(line, "metrics.jsonl");
    EXPECT_EQ(step["mismatch/logp_abs_diff_max"].get<double>(), 0.0) << line;
    EXPECT_EQ(step["lag/max"].get<int>(), 0);
  }
  EXPECT_EQ(steps, 150);
}

}  // namespace
}  // namespace temper::cli
