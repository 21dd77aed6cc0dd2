// canon-1 on a device: the whole engine gives the CPU's tokens, log-probs and experts bit for bit.
#include "tests/simt/engine/engines.h"

namespace temper::engine {
namespace {

using kernels::CacheType;

std::vector<GroupRequest> Mixture() {
  return {Group(1, 20, 3, 5, true), Group(2, 5, 4, 8), Group(3, 33, 2, 4), Group(4, 1, 2, 6),
          Group(1001, 20, 2, 3)};
}

class ModesTest : public ::testing::TestWithParam<std::pair<Mode, CacheType>> {};
INSTANTIATE_TEST_SUITE_P(ModesAndCaches, ModesTest,
                         ::testing::Values(std::pair(Mode::kFp32, CacheType::kF32),
                                           std::pair(Mode::kFp32, CacheType::kFp8),
                                           std::pair(Mode::kBf16, CacheType::kBf16),
                                           std::pair(Mode::kFp8, CacheType::kBf16),
                                           std::pair(Mode::kFp8, CacheType::kFp8),
                                           std::pair(Mode::kFp8W8a8, CacheType::kBf16),
                                           std::pair(Mode::kFp8W8a8, CacheType::kF32)));

TEST_P(ModesTest, GivesTheBitsOfTheCpu) {
  const auto [mode, cache] = GetParam();
  auto weights = TinyWeights(TinyConfig(), 5, {mode, cache});
  ExpectSame(Drive(weights, On("cpu"), Mixture()), Drive(weights, On("cuda:0"), Mixture()));
}

}  // namespace
}  // namespace temper::engine
