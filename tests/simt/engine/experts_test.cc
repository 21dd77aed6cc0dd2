// Experts over several devices: what one device computes, bit for bit.
#include "configs/error.h"
#include "engine/decoder.h"
#include "tests/simt/engine/engines.h"

namespace temper::engine {
namespace {

std::vector<GroupRequest> Mixture() {
  return {Group(1, 20, 3, 5, true), Group(2, 5, 4, 8), Group(3, 33, 2, 4)};
}

class ExpertsTest : public testing::TestWithParam<std::tuple<Mode, const char*>> {
 protected:
#ifndef TEMPER_ON_DEVICE
  void SetUp() override { simt::Host().devices = 8; }
  void TearDown() override { simt::Host() = {}; }
#endif
};

#ifdef TEMPER_ON_DEVICE
/// A machine of GPUs may have one.
bool Lacks(const char* devices) {
  try {
    CheckDevice(devices);
    return false;
  } catch (const MachineError&) {
    return true;
  }
}
#endif

TEST_P(ExpertsTest, OnSeveralDevicesGiveTheBitsOfTheCpu) {
  const auto [mode, devices] = GetParam();
#ifdef TEMPER_ON_DEVICE
  if (Lacks(devices)) GTEST_SKIP() << "this machine has not so many devices";
#endif
  auto weights = TinyWeights(TinyConfig(), 5, {mode, kernels::CacheType::kBf16});
  ExpectSame(Drive(weights, On("cpu"), Mixture()), Drive(weights, On(devices), Mixture()));
}

INSTANTIATE_TEST_SUITE_P(All, ExpertsTest,
                         testing::Combine(testing::Values(Mode::kFp32, Mode::kBf16, Mode::kFp8,
                                                          Mode::kFp8W8a8),
                                          testing::Values("cuda:0-1", "cuda:2-4", "cuda:0-3")));

#ifndef TEMPER_ON_DEVICE
TEST_F(ExpertsTest, TheArithmeticOfTensorCoresIsThatOfOneDevice) {
  const Numerics numerics = WithArithmetic({Mode::kFp8W8a8, kernels::CacheType::kBf16}, "cuda-1");
  auto weights = TinyWeights(TinyConfig(), 5, numerics);
  ExpectSame(Drive(weights, On("cuda:0"), Mixture()), Drive(weights, On("cuda:0-2"), Mixture()));
}

/// Ten decode steps' counts.
simt::HostState TenSteps() {
  auto weights = TinyWeights(TinyConfig(), 5);
  Engine engine(weights, On("cuda:0-1"));
  engine.Add(Group(1, 4, 3, 20));
  std::vector<FinishedSample> done;
  for (int i = 0; i < 3; ++i) engine.Step(&done);
  const simt::HostState before = simt::Host();
  for (int i = 0; i < 10; ++i) engine.Step(&done);
  simt::HostState now = simt::Host();
  now.waits -= before.waits;
  now.graph_launches -= before.graph_launches;
  now.captures -= before.captures;
  now.allocations -= before.allocations;
  now.collectives -= before.collectives;
  return now;
}

TEST_F(ExpertsTest, AStepWaitsOnceAndAllocatesNothing) {
  const simt::HostState counts = TenSteps();
  EXPECT_EQ(counts.waits, 10u);
  EXPECT_EQ(counts.allocations, 0u);
  EXPECT_EQ(counts.graph_launches, 0u);
  // Rows, their order and their places to the others, rows back, in two MoE layers.
  EXPECT_EQ(counts.collectives, 10u * 2 * 4);
}

TEST_F(ExpertsTest, AStepIsOneGraphOfAllDevicesWhereThatIsAskedFor) {
  setenv("TEMPER_DEVICE_GRAPHS", "1", 1);
  const simt::HostState counts = TenSteps();
  auto weights = TinyWeights(TinyConfig(), 5, {Mode::kFp8, kernels::CacheType::kBf16});
  ExpectSame(Drive(weights, On("cpu"), Mixture()), Drive(weights, On("cuda:0-2"), Mixture()));
  unsetenv("TEMPER_DEVICE_GRAPHS");
  EXPECT_EQ(counts.waits, 10u);
  EXPECT_EQ(counts.allocations, 0u);
  EXPECT_EQ(counts.graph_launches, 10u);
  EXPECT_EQ(counts.captures, 0u);
  EXPECT_EQ(counts.collectives, 0u);  // captured
}

TEST_F(ExpertsTest, ADeviceThatFailsEndsTheStepAndIsNamed) {
  Engine engine(TinyWeights(TinyConfig(), 5), On("cuda:0-2"));
  engine.Add(Group(1, 4, 3, 20));
  std::vector<FinishedSample> done;
  for (int i = 0; i < 3; ++i) engine.Step(&done);
  simt::Host().failed = 2;
  try {
    for (int i = 0; i < 3; ++i) engine.Step(&done);
    FAIL() << "nobody noticed";
  } catch (const MachineError& error) {
    EXPECT_NE(std::string(error.what()).find("cuda:2: computing: unspecified launch failure"),
              std::string::npos)
        << error.what();
  }
  EXPECT_EQ(simt::Host().aborts, 3u) << "nobody waits for it on a device";
}

TEST_F(ExpertsTest, TakeNewWeightsInPlace) {
  std::vector<Results> ran;
  for (const char* name : {"cpu", "cuda:0-2"}) {
    auto weights = TinyWeights(TinyConfig(), 5, {Mode::kFp8, kernels::CacheType::kBf16});
    Engine engine(weights, On(name));
    engine.Add(Group(1, 20, 3, 7));
    std::vector<FinishedSample> done;
    for (int i = 0; i < 4; ++i) engine.Step(&done);
    FillTiny(weights.get(), 9);
    const std::uint64_t before = simt::Host().allocations;
    engine.SetVersion(2, CachePolicy::kKeep);
    ran.push_back(Finish(engine, std::move(done)));
    EXPECT_EQ(simt::Host().allocations, before);
  }
  ExpectSame(ran[0], ran[1]);
}

TEST_F(ExpertsTest, EachDeviceHoldsItsPartAlone) {
  auto weights = TinyWeights(TinyConfig(), 5);
  const auto used = [&](const char* devices) {
    EngineOptions o = On(devices);
    const Engine engine(weights, o);
    return simt::Host().used;
  };
  const std::size_t one = used("cuda:0"), two = used("cuda:0-1");
  EXPECT_EQ(simt::Host().used, 0u) << "everything was given back";
  // The experts' halves and the second device's results of a step, no second copy of the rest.
  EXPECT_LT(two, 3 * one / 2);
}

TEST_F(ExpertsTest, DevicesThatAreNotThereOrTooManyAreNamed) {
  const auto message = [](const std::string& devices, const ModelConfig& config) -> std::string {
    try {
      const Engine engine(TinyWeights(config, 5), On(devices));
    } catch (const std::exception& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message("cuda:6-8", TinyConfig()).find("cuda:8: this machine has 8 devices"),
            std::string::npos);
  simt::Host().devices = 100;
  EXPECT_NE(message("cuda:1-90", TinyConfig())
                .find("device: cuda:1-90 spreads experts over 90 devices; this model has"),
            std::string::npos);
  for (const char* name :
       {"cuda:1-0", "cuda:0-", "cuda:-1", "cuda:0-1-2", "cuda:0-1024", "cuda:a-b"})
    EXPECT_THROW(ParseDevices(name), UserError) << name;
  EXPECT_EQ(ParseDevices("cuda:2-5").count, 4);
  EXPECT_THROW(DeviceNumber("cuda:2-5"), UserError);
}
#endif

}  // namespace
}  // namespace temper::engine
