#include "kernels/cpu.h"

#include <cstdlib>
#include <stdexcept>

#include "tests/kernels/testing.h"

namespace temper::kernels {
namespace {

TEST(CpuTest, TheScalarReferenceRunsEverywhereAndNamesAreStable) {
  EXPECT_TRUE(Supports(Isa::kScalar));
  EXPECT_EQ(IsaName(Isa::kScalar), "scalar");
  EXPECT_EQ(IsaName(Isa::kAvx2), "avx2");
  EXPECT_EQ(IsaName(Isa::kAvx512), "avx512");
  EXPECT_FALSE(CpuDescription().empty());
}

TEST(CpuTest, ForcingAVariantHoldsUntilTheNext) {
  const Isa before = ActiveIsa();
  for (Isa isa : Variants()) {
    ForceIsa(isa);
    EXPECT_EQ(ActiveIsa(), isa);
  }
  ForceIsa(before);
}

TEST(CpuTest, ForcingWhatTheMachineLacksIsAnError) {
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (Supports(isa)) continue;
    EXPECT_THROW(ForceIsa(isa), std::invalid_argument);
  }
}

// The choice is made once a process, so each of these asks in a process of its own.
[[noreturn]] void AskWith(const char* name) {
  setenv("TEMPER_ISA", name, 1);
  try {
    std::exit(IsaName(ActiveIsa()) == name ? 0 : 1);
  } catch (const std::invalid_argument& e) {
    std::fprintf(stderr, "%s\n", e.what());
    std::exit(2);
  }
}

TEST(CpuDeathTest, TheEnvironmentForcesAVariant) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(AskWith("scalar"), ::testing::ExitedWithCode(0), "");
  if (Supports(Isa::kAvx2)) {
    EXPECT_EXIT(AskWith("avx2"), ::testing::ExitedWithCode(0), "");
  }
  if (!Supports(Isa::kAvx512)) {
    EXPECT_EXIT(AskWith("avx512"), ::testing::ExitedWithCode(2), "lacks it");
  }
}

TEST(CpuDeathTest, AnUnknownVariantIsAnErrorThatNamesTheKnown) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(AskWith("neon"), ::testing::ExitedWithCode(2),
              "TEMPER_ISA=neon.*scalar, avx2 or avx512");
}

}  // namespace
}  // namespace temper::kernels
