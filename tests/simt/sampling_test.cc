// Log-softmax and the sampler against the CPU: the same numbers, the same token.
#include "kernels/sampling.h"

#include "kernels/cuda/cuda_kernels.h"
#include "tests/simt/testing.h"

namespace temper::kernels {
namespace {

using simt::Buffer;
using simt::UnderEveryOrder;

class LogSoftmaxTest : public ::testing::TestWithParam<std::pair<int, int>> {};
INSTANTIATE_TEST_SUITE_P(RaggedShapes, LogSoftmaxTest,
                         ::testing::Values(std::pair(1, 1), std::pair(3, 77), std::pair(2, 1024),
                                           std::pair(5, 2600), std::pair(33, 1030)));

TEST_P(LogSoftmaxTest, GivesTheBitsOfTheCpu) {
  const auto [m, v] = GetParam();
  const std::int64_t ld = v + 5;
  const std::size_t rows = static_cast<std::size_t>(m);
  const std::vector<float> logits = Normal(rows * static_cast<std::size_t>(ld), 1, 6.0f);
  std::vector<float> temperature, lse(rows), logp(rows), entropy(rows);
  std::vector<std::int32_t> target;
  ThreadPool pool(1);
  for (int r = 0; r < m; ++r) {
    temperature.push_back(r % 2 == 0 ? 1.0f : 0.7f);
    target.push_back((r * 41 + v - 1) % v);
    const std::size_t i = static_cast<std::size_t>(r);
    LogSumExp(logits.data() + r * ld, ld, 1, v, temperature[i], &lse[i], pool);
    TokenLogProbs(logits.data() + r * ld, ld, 1, v, temperature[i], &target[i], &logp[i], pool);
    Entropy(logits.data() + r * ld, ld, 1, v, temperature[i], &entropy[i], pool);
  }
  UnderEveryOrder([&] {
    Buffer<float> dl(logits), dt(temperature), dlse(rows), dp(rows), de(rows),
        scratch(static_cast<std::size_t>(cuda::LogSoftmaxScratch(m, v)));
    Buffer<std::int32_t> dtarget(target);
    cuda::LogSoftmax({dl.data(), ld, m, v, dt.data(), dlse.data(), dtarget.data(), dp.data(),
                      de.data(), scratch.data()},
                     nullptr);
    EXPECT_TRUE(SameBits(dlse.Values(), lse));
    EXPECT_TRUE(SameBits(dp.Values(), logp));
    EXPECT_TRUE(SameBits(de.Values(), entropy));
  });
}

/// Rows of one call, each with its parameters.
struct Batch {
  int v, valid;
  std::vector<float> logits;
  std::vector<cuda::SampleRow> rows;
};

void Check(const Batch& batch) {
  const std::size_t m = batch.rows.size(), v = static_cast<std::size_t>(batch.v);
  ThreadPool pool(1);
  std::vector<float> lse(m);
  std::vector<SampledToken> expected;
  for (std::size_t r = 0; r < m; ++r) {
    const cuda::SampleRow& row = batch.rows[r];
    const float* logits = batch.logits.data() + r * v;
    LogSumExp(logits, batch.v, 1, batch.v, row.temperature == 0 ? 1 : row.temperature, &lse[r],
              pool);
    expected.push_back(SampleToken(logits, batch.v, batch.valid,
                                   {row.temperature, row.top_k, row.top_p, row.min_p},
                                   SampleUniform(row.seed, row.group, row.sample, row.position)));
  }
  UnderEveryOrder([&] {
    Buffer<float> dl(batch.logits), dlse(lse);
    Buffer<cuda::SampleRow> rows(batch.rows);
    Buffer<cuda::SampledRow> out(m);
    cuda::Sample(dl.data(), batch.v, static_cast<int>(m), batch.v, batch.valid, dlse.data(),
                 rows.data(), out.data(), nullptr);
    for (std::size_t r = 0; r < m; ++r) {
      SCOPED_TRACE("row " + std::to_string(r));
      const cuda::SampledRow& got = out.data()[r];
      EXPECT_EQ(got.id, expected[r].id);
      EXPECT_TRUE(
          SameBits({got.logp, got.logp_processed, got.log_kept_mass},
                   {expected[r].logp, expected[r].logp_processed, expected[r].log_kept_mass}));
    }
  });
}

cuda::SampleRow At(unsigned i, float temperature, int top_k, float top_p, float min_p) {
  return {7 + (std::uint64_t{i} << 40),
          3 + (std::uint64_t{i} << 33),
          i,
          5 * i,
          temperature,
          top_k,
          top_p,
          min_p};
}

Batch Rows(int v, int valid, float spread, std::vector<cuda::SampleRow> rows) {
  return {v, valid, Normal(rows.size() * static_cast<std::size_t>(v), 17, spread), std::move(rows)};
}

TEST(SampleTest, PicksTheTokenOfTheCpuWithoutFilters) {
  for (int v : {1, 300, 5000}) {
    for (float spread : {0.01f, 1.0f, 12.0f}) {
      std::vector<cuda::SampleRow> rows;
      for (unsigned i = 0; i < 6; ++i) rows.push_back(At(i, i % 2 == 0 ? 1.0f : 0.6f, 0, 1, 0));
      Check(Rows(v, v - v / 10, spread, rows));
    }
  }
}

TEST(SampleTest, PicksTheTokenOfTheCpuWithEveryFilter) {
  for (int v : {77, 3000}) {
    for (float spread : {0.2f, 3.0f}) {
      Check(Rows(v, v - 3, spread,
                 {At(0, 1, 5, 1, 0), At(1, 1, 0, 0.9f, 0), At(2, 1, 0, 1, 0.05f),
                  At(3, 0.8f, 40, 0.7f, 0.01f), At(4, 1.3f, 1, 1, 0), At(5, 1, 0, 1e-6f, 0),
                  At(6, 1, v, 0.9999999f, 0), At(7, 1, v - 4, 0.5f, 1.0f)}));
    }
  }
}

TEST(SampleTest, BreaksTiesByTheLowerId) {
  Batch batch =
      Rows(900, 900, 1.0f,
           {At(0, 1, 7, 1, 0), At(1, 1, 0, 0.3f, 0), At(2, 0, 0, 1, 0), At(3, 0, 3, 0.5f, 0.1f)});
  for (float& x : batch.logits) x = std::round(x) * 0.5f;  // with -0 and +0
  Check(batch);
}

TEST(SampleTest, TakesTheLargestWhereEverythingThatIsKeptUnderflows) {
  Batch batch = Rows(600, 500, 1.0f, {At(0, 1, 0, 1, 0), At(1, 1, 4, 1, 0), At(2, 1, 0, 0.5f, 0)});
  for (std::size_t r = 0; r < 3; ++r) batch.logits[r * 600 + 550] = 400.0f;  // can't be picked
  Check(batch);
}

TEST(SampleTest, SumsExactTiesAndLongTailsAsThePlainLoop) {
  // Powers of two apart by less than a unit of the sum: every rounding case of the running sum.
  Batch batch = Rows(4096, 4096, 0.0f, {At(0, 1, 0, 1, 0), At(1, 1, 0, 1, 0), At(9, 1, 0, 1, 0)});
  for (std::size_t i = 0; i < batch.logits.size(); ++i) {
    batch.logits[i] = i % 4096 == 0 ? 16.0f : -0.6931472f * static_cast<float>(i % 5);
  }
  Check(batch);
}

TEST(SampleTest, RefusesRowsWithoutAnIdToPick) {
  EXPECT_THROW(cuda::Sample(nullptr, 4, 1, 4, 0, nullptr, nullptr, nullptr, nullptr),
               std::logic_error);
}

}  // namespace
}  // namespace temper::kernels
