// What a machine may lack: one line that says which, and what to do.
#include "configs/error.h"
#include "engine/cuda/status.h"
#include "engine/cuda/targets.h"
#include "engine/decoder.h"
#include "tests/simt/engine/engines.h"
#include "tests/simt/host_runtime.h"

namespace temper::engine {
namespace {

class ErrorsTest : public ::testing::Test {
 protected:
  void TearDown() override { simt::Host() = {}; }

  /// The one line of a machine that can't; "" where it can.
  static std::string Line(const std::string& device) {
    try {
      Drive(TinyWeights(TinyConfig(), 5), On(device), {Group(1, 3, 1, 2)});
    } catch (const MachineError& error) {
      const std::string line = error.what();
      EXPECT_EQ(line.find('\n'), std::string::npos);
      return line;
    }
    return "";
  }
  static void ExpectSays(const std::string& line, const std::vector<std::string>& words) {
    for (const std::string& word : words)
      EXPECT_NE(line.find(word), std::string::npos) << word << " in: " << line;
  }
};

TEST_F(ErrorsTest, NoDriver) {
  simt::Host().driver = 0;
  simt::Host().devices = 0;
  ExpectSays(Line("cuda:0"), {"cuda:0", "no NVIDIA driver", "install", "cpu"});
  EXPECT_FALSE(CudaStatus().usable);
  EXPECT_EQ(Line("cpu"), "");
}

TEST_F(ErrorsTest, ADriverOlderThanTheRuntime) {
  simt::Host().driver = 12040;
  ExpectSays(Line("cuda:0"), {"12.4", "13.0", "update the driver"});
  simt::Host().driver = 13020;
  EXPECT_EQ(Line("cuda:0"), "");
}

TEST_F(ErrorsTest, NoDevice) {
  simt::Host().devices = 0;
  ExpectSays(Line("cuda:0"), {"no CUDA device", "CUDA_VISIBLE_DEVICES"});
}

TEST_F(ErrorsTest, ANumberPastTheDevices) {
  ExpectSays(Line("cuda:7"), {"cuda:7", "2 devices", "cuda:0 to cuda:1"});
  simt::Host().devices = 1;
  ExpectSays(Line("cuda:1"), {"1 device;", "choose cuda:0 or"});
  EXPECT_EQ(Line("cuda"), "");
}

TEST_F(ErrorsTest, ADeviceTooOldOrTooNew) {
  simt::Host().major = 7;
  simt::Host().minor = 5;
  ExpectSays(Line("cuda:0"), {"7.5", "90a", "TEMPER_CUDA_TARGETS"});
  EXPECT_FALSE(CudaStatus().usable);
  simt::Host().major = 10;
  simt::Host().minor = 0;
  ExpectSays(Line("cuda:0"), {"10.0"});
}

TEST_F(ErrorsTest, MemoryThatRunsOutSaysHowMuchForWhatAndWhatIsFree) {
  simt::Host().memory = 100 << 10;
  ExpectSays(Line("cuda:0"), {"out of memory", "the weights", "MiB", "free", "of 0.10 MiB"});
  simt::Host().memory = 8 << 20;
  EngineOptions o = On("cuda:0");
  o.cache_tokens = 1 << 20;
  try {
    Drive(TinyWeights(TinyConfig(), 5), o, {Group(1, 3, 1, 2)});
    ADD_FAILURE() << "it fitted";
  } catch (const MachineError& error) {
    ExpectSays(error.what(), {"pages of the latent cache want", "cache_tokens"});
  }
  EXPECT_EQ(simt::Host().used, 0u) << "everything was given back";
}

TEST_F(ErrorsTest, AKernelThatFailsNamesItself) {
  auto weights = TinyWeights(TinyConfig(), 5);
  Engine engine(weights, On("cuda:1"));
  engine.Add(Group(1, 3, 1, 4));
  std::vector<FinishedSample> done;
  engine.Step(&done);
  simt::Host().launch_error = cudaErrorLaunchFailure;
  try {
    engine.Step(&done);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const MachineError& error) {
    ExpectSays(error.what(), {"cuda:1", "unspecified launch failure"});
  }
}

TEST_F(ErrorsTest, NamesThatAreNoDevice) {
  for (const char* name :
       {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1 ", "", "CPU", "cuda:99999999999"})
    EXPECT_THROW(DeviceNumber(name), UserError) << name;
  EXPECT_EQ(DeviceNumber("cpu"), -1);
  EXPECT_EQ(DeviceNumber("cuda:12"), 12);
  // Tensor cores' sums are nothing that a CPU has.
  auto weights = TinyWeights(
      TinyConfig(), 5, {Mode::kBf16, kernels::CacheType::kBf16, kernels::ScaleRecipe::kPow2, true});
  EXPECT_THROW(Engine(weights, On("cpu")), UserError);
}

TEST_F(ErrorsTest, StatusSaysWhatIsThere) {
  const DeviceStatus status = CudaStatus();
  EXPECT_TRUE(status.usable);
  ExpectSays(status.found, {"built with CUDA 13.0 for 90a", "driver for CUDA 13.0", "cuda:1",
                            "compute capability 9.0", "1 GiB"});
}

TEST_F(ErrorsTest, TargetsDecideWhichDevicesRun) {
  EXPECT_TRUE(cuda::RunsOn("90a", 9, 0));
  EXPECT_FALSE(cuda::RunsOn("90a", 10, 0));
  EXPECT_FALSE(cuda::RunsOn("90a", 8, 9));
  EXPECT_TRUE(cuda::RunsOn("80 89 90a", 8, 6));
  EXPECT_FALSE(cuda::RunsOn("89 90a", 8, 0));
  EXPECT_TRUE(cuda::RunsOn("80 90a 80-ptx", 12, 0));
  EXPECT_FALSE(cuda::RunsOn("80-ptx", 7, 5));
}

}  // namespace
}  // namespace temper::engine
