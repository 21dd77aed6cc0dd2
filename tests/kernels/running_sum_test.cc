#include "kernels/running_sum.h"

#include <algorithm>
#include <cmath>

#include "tests/kernels/testing.h"

namespace temper::kernels {
namespace {

/// The plain loop and its sums after each chunk.
std::vector<float> Plain(const std::vector<float>& p) {
  std::vector<float> ends;
  float sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    sum += p[i];
    if (i % kRunChunk == kRunChunk - 1 || i + 1 == p.size()) ends.push_back(sum);
  }
  return ends;
}

void ExpectPlain(const std::vector<float>& p, const std::string& what) {
  const std::vector<float> want = Plain(p);
  std::vector<float> got(want.size() + 1, kNan);
  const float sum = RunningSum(p.data(), int(p.size()), got.data());
  EXPECT_EQ(sum, want.empty() ? 0.0f : want.back()) << what;
  EXPECT_TRUE(std::isnan(got.back()));
  got.pop_back();
  EXPECT_TRUE(SameBits(want, got)) << what;
}

TEST(RunningSumTest, IsThePlainLoopForEveryDistribution) {
  for (int n : {0, 1, 255, 256, 257, 1000, 32768, 129280}) {
    for (float width : {0.0f, 0.5f, 3.0f, 10.0f, 30.0f}) {
      std::vector<float> p = Normal(n, n + int(width), width);
      double total = 0;
      for (float v : p) total += std::exp(double(v));
      for (float& v : p) v = float(std::exp(double(v)) / total);
      ExpectPlain(p, std::to_string(n) + " entries of width " + std::to_string(width));
      std::sort(p.begin(), p.end());
      ExpectPlain(p, "ascending");
      std::reverse(p.begin(), p.end());
      ExpectPlain(p, "descending");
    }
  }
}

TEST(RunningSumTest, ExactTiesRoundAsThePlainLoopRoundsThem) {
  // Multiples of half a unit of sums in [0.5, 1): every second addition is a tie.
  std::mt19937 random(1);
  std::vector<float> p(5000);
  p[0] = 0.5f;
  for (std::size_t i = 1; i < p.size(); ++i) p[i] = float(random() % 16) * 0x1p-25f;
  ExpectPlain(p, "ties");
  // The test can fail: added in another order the ties fall otherwise.
  std::vector<float> other = p;
  std::reverse(other.begin() + 1, other.end());
  EXPECT_NE(Plain(p).back(), Plain(other).back());
}

TEST(RunningSumTest, TinyHugeAndZeroEntriesAreAddedToo) {
  std::vector<float> p(4000, 0.0f);
  ExpectPlain(p, "zeros");
  p[3000] = 1.0f;
  ExpectPlain(p, "one");
  for (std::size_t i = 0; i < p.size(); ++i) p[i] = std::ldexp(1.0f, -int(i % 149));
  ExpectPlain(p, "every exponent");
  for (std::size_t i = 0; i < p.size(); ++i) p[i] = i < 2000 ? 1e-30f : 1e20f;
  ExpectPlain(p, "a jump");
}

}  // namespace
}  // namespace temper::kernels
