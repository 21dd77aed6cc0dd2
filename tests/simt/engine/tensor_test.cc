// cuda-1 on a device: tensor cores' sums. Near the CPU's numbers, and a sample's bits depend on
// nothing but the sample.
#include <algorithm>
#include <cmath>

#include "configs/error.h"
#include "tests/simt/engine/engines.h"

namespace temper::engine {
namespace {

using kernels::CacheType;
using kernels::ScaleRecipe;

/// A model whose attention fits the tensor cores' kernel, everything else tiny.
ModelConfig WideLatent() {
  Json j = TinyConfig(/*q_lora=*/false, /*mtp=*/0).raw;
  for (const auto& [key, value] : {std::pair("hidden_size", 64),
                                   {"intermediate_size", 96},
                                   {"num_hidden_layers", 2},
                                   {"num_attention_heads", 2},
                                   {"num_key_value_heads", 2},
                                   {"kv_lora_rank", 512},
                                   {"qk_nope_head_dim", 24},
                                   {"qk_rope_head_dim", 64},
                                   {"v_head_dim", 20},
                                   {"n_routed_experts", 6},
                                   {"num_experts_per_tok", 2},
                                   {"n_group", 2},
                                   {"topk_group", 1},
                                   {"max_position_embeddings", 1024}})
    j[key] = value;
  return ParseModelConfig(j, "wide latent");
}

struct Case {
  bool wide;
  Mode mode;
  CacheType cache;
};
class TensorTest : public ::testing::TestWithParam<Case> {
 protected:
  static std::shared_ptr<Weights> Of(bool tensor) {
    const Case& c = GetParam();
    return TinyWeights(c.wide ? WideLatent() : TinyConfig(), 5,
                       {c.mode, c.cache, ScaleRecipe::kPow2, tensor});
  }
  static std::vector<GroupRequest> Mixture() {
    return {Group(1, 20, 2, 4), Group(2, 5, 3, 6, true), Group(3, 33, 1, 3)};
  }
};
INSTANTIATE_TEST_SUITE_P(Modes, TensorTest,
                         ::testing::Values(Case{false, Mode::kBf16, CacheType::kBf16},
                                           Case{false, Mode::kFp8, CacheType::kF32},
                                           Case{true, Mode::kFp8, CacheType::kFp8},
                                           Case{true, Mode::kFp8W8a8, CacheType::kBf16},
                                           Case{false, Mode::kFp8W8a8, CacheType::kF32}));

/// The middle one of the differences between two runs' log-probs, up to the first token that
/// differs.
double Distance(const Results& a, const Results& b) {
  std::vector<double> differences;
  for (const auto& [key, x] : a) {
    const FinishedSample& y = b.at(key);
    for (std::size_t i = 0; i < std::min(x.ids.size(), y.ids.size()); ++i) {
      if (x.ids[i] != y.ids[i]) break;
      differences.push_back(std::fabs(double{x.logp[i]} - double{y.logp[i]}));
    }
  }
  EXPECT_GE(differences.size(), 6u);
  if (differences.empty()) return 1e9;
  std::sort(differences.begin(), differences.end());
  return differences[differences.size() / 2];
}

TEST_P(TensorTest, StaysNearerTheCanonicalOrderThanItsModeToFp32) {
  // Both round alike; sums in another order flip a last bit of what is rounded here and there.
  std::vector<GroupRequest> prompts;
  for (int i = 0; i < 8; ++i) prompts.push_back(Group(std::uint64_t(i), 3 + 5 * i, 6, 1));
  const Results canon = Drive(Of(false), On("cpu"), prompts);
  const Results tensor = Drive(Of(true), On("cuda:0"), prompts);
  const Results exact =
      Drive(TinyWeights(GetParam().wide ? WideLatent() : TinyConfig(), 5), On("cpu"), prompts);
  const double distance = Distance(tensor, canon), rounding = Distance(canon, exact);
  // Queries in BF16 flip codes of W8A8's inputs: that is as far again as its rounding.
  const bool codes = GetParam().wide && GetParam().mode == Mode::kFp8W8a8;
  EXPECT_LE(distance, codes ? 2 * rounding : rounding);
  EXPECT_GT(distance, 0) << "the tensor cores' order was never taken";
  RecordProperty("distance", std::to_string(distance) + " against " + std::to_string(rounding));
}

TEST_P(TensorTest, GivesASampleItsBitsInAnyCompanyChunkAndOrder) {
  auto weights = Of(true);
  const Results expected = Drive(weights, On("cuda:0"), Mixture());
  for (const auto& [chunk, order] :
       {std::pair(5, simt::Order::kShuffled), std::pair(64, simt::Order::kReverse)}) {
    simt::SetOrder(order, 7);
    EngineOptions o = On("cuda:0");
    o.chunk = chunk;
    ExpectSame(expected, Drive(weights, o, Mixture()));
    simt::SetOrder(simt::Order::kForward);
  }
  for (const GroupRequest& group : Mixture()) {
    const Results alone = Drive(weights, On("cuda:0"), {group});
    for (const auto& [key, sample] : alone) {
      EXPECT_TRUE(Same(sample.logp, expected.at(key).logp));
      EXPECT_EQ(sample.experts, expected.at(key).experts);
    }
  }
}

#ifndef TEMPER_ON_DEVICE
TEST(TensorIdTest, ADeviceOfLittleSharedMemoryIsRefusedByName) {
  simt::Host().shared = 99 << 10;
  auto weights =
      TinyWeights(WideLatent(), 5, {Mode::kFp8, CacheType::kFp8, ScaleRecipe::kPow2, true});
  try {
    Engine engine(weights, On("cuda:0"));
    ADD_FAILURE() << "nothing was thrown";
  } catch (const MachineError& error) {
    EXPECT_NE(std::string(error.what()).find("100 KiB of shared memory"), std::string::npos)
        << error.what();
  }
  simt::Host() = {};
}
#endif

TEST(TensorIdTest, TheArithmeticIsPartOfTheNumericsId) {
  const Numerics n{Mode::kFp8W8a8, CacheType::kFp8, ScaleRecipe::kPow2, true};
  EXPECT_EQ(n.id(), "cuda-1/fp8-w8a8/cache-fp8");
}

}  // namespace
}  // namespace temper::engine
