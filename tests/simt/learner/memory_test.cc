// A device that runs out of memory is the machine's fault, told in one line.
#include <gtest/gtest.h>

#include "configs/error.h"
#include "learner/process.h"
#include "tests/learner/tiny_policy.h"
#include "tests/simt/learner/host_device.h"

namespace temper::learner {
namespace {

TEST(DeviceMemoryTest, RunningOutIsOneLineThatSaysHowMuchAndWhatToDo) {
  const engine::ModelConfig config = engine::TinyConfig();
  const auto policy = TinyPolicy(config, 4, 2, false, {}, false, "cuda:0");
  const TinyBatch batch = RandomBatch(config, {40, 40}, 2);
  std::string said;
  largest_allocation = 20000;
  try {
    OnDevice("cuda:0", [&] { return AddGradients(*policy, batch) > 0; });
  } catch (const MachineError& error) {
    said = error.what();
  }
  largest_allocation = SIZE_MAX;
  EXPECT_EQ(said.find("cuda:0: out of memory: CUDA out of memory. Tried to allocate "), 0u) << said;
  EXPECT_NE(said.find("; try learner.gradient_checkpointing"), std::string::npos) << said;
  EXPECT_EQ(said.find('\n'), std::string::npos) << said;
}

TEST(DeviceMemoryTest, OtherErrorsStayWhatTheyAre) {
  EXPECT_THROW(OnDevice("cuda:0", []() -> int { throw std::logic_error("a bug"); }),
               std::logic_error);
  EXPECT_THROW(OnDevice("cuda:0", []() -> int { TORCH_CHECK(false, "a shape"); }), c10::Error);
  EXPECT_THROW(OnDevice("cuda:0", []() -> int { TORCH_CHECK(false, "CUDA error: unspecified"); }),
               MachineError);
  EXPECT_EQ(OnDevice("cpu", [] { return 3; }), 3);
}

}  // namespace
}  // namespace temper::learner
