// The machine finds what is planted, and leaves sound kernels alone.
#include <cmath>
#include <numeric>

#include "kernels/bf16.h"
#include "kernels/fp8.h"
#include "tests/simt/cuda_runtime.h"
#include "tests/simt/planted.h"
#include "tests/simt/testing.h"
#include "tests/simt/warp.h"

namespace simt {
namespace {

using temper::kernels::Normal;

constexpr int kN = 50;

std::string FaultOf(const std::function<void()>& body) {
  try {
    body();
  } catch (const Fault& fault) {
    return fault.what();
  }
  return "no fault";
}

class MachineTest : public ::testing::Test {
 protected:
  Buffer<float> x_{Normal(kN, 1)};
  Buffer<float> y_{kN};
};

TEST_F(MachineTest, RunsASoundKernelAlikeUnderEveryOrder) {
  const auto results = Results([&] {
    planted::Reverse(x_.data(), kN, y_.data());
    return y_.Values();
  });
  EXPECT_TRUE(SameUnderEveryOrder(results));
  std::vector<float> reversed = x_.Values();
  std::reverse(reversed.begin(), reversed.end());
  EXPECT_EQ(results[0], reversed);
}

TEST_F(MachineTest, ShowsAMissingBarrierAsADifferenceBetweenOrders) {
  EXPECT_FALSE(SameUnderEveryOrder(Results([&] {
    planted::ReverseWithoutBarrier(x_.data(), kN, y_.data());
    return y_.Values();
  })));
}

TEST_F(MachineTest, ShowsARaceOnASumAsADifferenceBetweenOrders) {
  const auto results = Results([&] {
    planted::SumRace(x_.data(), kN, y_.data());
    return std::vector<float>{y_.data()[0]};
  });
  EXPECT_FALSE(SameUnderEveryOrder(results)) << "the order of the sum must show";
}

TEST_F(MachineTest, ShowsLanesThatAreNotInStep) {
  const auto results = Results([&] {
    planted::WarpSumWithoutSync(x_.data(), y_.data());
    return std::vector<float>{y_.data()[0]};
  });
  const float sum = std::accumulate(x_.data(), x_.data() + kWarp, 0.0f);
  bool wrong = false;
  for (const auto& r : results) wrong = wrong || !(std::fabs(r[0] - sum) < 1e-4f);
  EXPECT_TRUE(wrong);
}

TEST_F(MachineTest, ShowsAWarpThatReadsBeforeAnotherWroteThoughBothWaitForTheirOwnLanes) {
  Buffer<float> x(Normal(64, 1)), y(64);
  EXPECT_FALSE(SameUnderEveryOrder(Results([&] {
    planted::ReadsAhead(x.data(), y.data());
    return y.Values();
  })));
}

TEST_F(MachineTest, NamesABarrierThatSomeThreadsNeverReach) {
  const std::string fault = FaultOf([&] { planted::BarrierInABranch(x_.data(), kN, y_.data()); });
  EXPECT_NE(fault.find("planted.cu:"), std::string::npos) << fault;
  EXPECT_NE(fault.find("has left"), std::string::npos) << fault;
}

TEST_F(MachineTest, NamesAShuffleWhoseMaskHoldsLanesThatLeft) {
  const std::string fault = FaultOf([&] { planted::ShuffleWithLeavers(x_.data(), 20, y_.data()); });
  EXPECT_NE(fault.find("for ever"), std::string::npos) << fault;
}

TEST_F(MachineTest, FindsAWritePastABuffer) {
  UnderEveryOrder([&] {
    const std::string fault = FaultOf([&] { planted::WriteOneTooFar(x_.data(), kN, y_.data()); });
    EXPECT_NE(fault.find("buffer"), std::string::npos) << fault;
    y_.data()[kN] = std::numeric_limits<float>::quiet_NaN();
    std::memset(y_.data() + kN, kPoison, 4);
  });
}

TEST_F(MachineTest, FindsAReadPastABuffer) {
  Buffer<float> full(Normal(52, 1));  // ends where its page ends
  Buffer<float> y(52);
  const std::string fault = FaultOf([&] { planted::ReadOneTooFar(full.data(), 52, y.data()); });
  EXPECT_NE(fault.find("not its own"), std::string::npos) << fault;
  // Up to the next sixteen bytes the poison shows instead.
  planted::ReadOneTooFar(x_.data(), kN, y_.data());
  EXPECT_TRUE(std::isnan(y_.data()[kN - 1]));
}

TEST_F(MachineTest, FindsAnOverrunOfSharedMemory) {
  Buffer<float> y(64);
  EXPECT_NE(FaultOf([&] { planted::SharedOverrun(y.data()); }).find("not its own"),
            std::string::npos);
}

TEST_F(MachineTest, GivesPoisonForACopyThatNobodyAwaited) {
  Buffer<float> y(32);
  planted::CopyWithoutWait(x_.data(), y.data());
  EXPECT_TRUE(std::isnan(y.data()[0]));
}

TEST_F(MachineTest, ShowsABlockThatReadsItsNeighbour) {
  EXPECT_FALSE(SameUnderEveryOrder(Results([&] {
    Buffer<float> y(8);
    planted::BlockReadsItsNeighbour(8, y.data());
    return y.Values();
  })));
}

TEST_F(MachineTest, RefusesALaunchThatNoDeviceTakes) {
  EXPECT_NE(FaultOf([] {
              simt::Run({1, 1, 1}, {2048, 1, 1}, 0, [] {});
            }).find("no device"),
            std::string::npos);
  EXPECT_NE(FaultOf([] {
              simt::Run({1, 1, 1}, {32, 1, 1}, 300000, [] {});
            }).find("no device"),
            std::string::npos);
}

TEST_F(MachineTest, IsWholeAgainAfterAFault) {
  FaultOf([&] { planted::BarrierInABranch(x_.data(), kN, y_.data()); });
  planted::Reverse(x_.data(), kN, y_.data());
  EXPECT_EQ(y_.data()[0], x_.data()[kN - 1]);
}

/// A [16, k] and B [k, 8] of small integers, whose products are exact in every order.
template <int word, typename Encode, typename Mma>
void CheckMma(const Encode& encode, const Mma& mma) {
  constexpr int k = 8 * word, bits = 32 / word;
  const auto a = [](int i, int j) { return static_cast<float>((3 * i + 5 * j) % 7 - 3); };
  const auto b = [](int j, int n) { return static_cast<float>((2 * j + 3 * n) % 5 - 2); };
  std::vector<float> found(16 * 8);
  simt::Run({1, 1, 1}, {32, 1, 1}, 0, [&] {
    const int lane = Lane();
    std::uint32_t ra[4] = {}, rb[2] = {};
    // As the PTX manual draws it: element e of a register by e's own row and column.
    for (int e = 0; e < 4 * word; ++e) {
      const int row = lane / 4 + (e / word % 2 == 1 ? 8 : 0);
      const int column = lane % 4 * word + e % word + (e / word >= 2 ? k / 2 : 0);
      ra[e / word] |= std::uint32_t{encode(a(row, column))} << (e % word * bits);
    }
    for (int e = 0; e < 2 * word; ++e) {
      const int row = lane % 4 * word + e % word + (e / word == 1 ? k / 2 : 0);
      rb[e / word] |= std::uint32_t{encode(b(row, lane / 4))} << (e % word * bits);
    }
    float d[4] = {1, 2, 3, 4};
    mma(d, ra, rb);
    for (int i = 0; i < 4; ++i) {
      found[static_cast<std::size_t>((lane / 4 + 8 * (i / 2)) * 8 + lane % 4 * 2 + i % 2)] =
          d[i] - static_cast<float>(i + 1);
    }
  });
  for (int i = 0; i < 16; ++i) {
    for (int n = 0; n < 8; ++n) {
      float sum = 0;
      for (int j = 0; j < k; ++j) sum += a(i, j) * b(j, n);
      EXPECT_EQ(found[static_cast<std::size_t>(i * 8 + n)], sum) << i << " " << n;
    }
  }
}

TEST_F(MachineTest, MultipliesFragmentsAsAMatrix) {
  CheckMma<2>([](float x) { return temper::kernels::EncodeBf16(x); },
              [](auto& d, auto& a, auto& b) { MmaBf16(d, a, b); });
  CheckMma<4>([](float x) { return temper::kernels::EncodeE4m3(x); },
              [](auto& d, auto& a, auto& b) { MmaE4m3(d, a, b); });
}

TEST_F(MachineTest, LoadsMatricesByRowsAndByColumns) {
  std::vector<std::uint16_t> values(32 * 8);
  std::iota(values.begin(), values.end(), std::uint16_t{0});
  Buffer<std::uint16_t> rows(values);
  simt::Run({1, 1, 1}, {32, 1, 1}, 0, [&] {
    std::uint32_t r[4], t[4];
    const int lane = Lane();
    LoadMatrix(r, rows.data() + 8 * lane);
    LoadMatrixTransposed(t, rows.data() + 8 * lane);
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t plain = static_cast<std::uint32_t>(64 * i + lane / 4 * 8 + lane % 4 * 2);
      const std::uint32_t across = static_cast<std::uint32_t>(64 * i + lane % 4 * 16 + lane / 4);
      EXPECT_EQ(r[i], plain | (plain + 1) << 16);
      EXPECT_EQ(t[i], across | (across + 8) << 16);
    }
  });
}

}  // namespace
}  // namespace simt
