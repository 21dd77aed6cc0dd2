#include "learner/core/attention_gradient.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "learner/core/gemm.h"

namespace temper::learner {
namespace {

std::vector<float> Random(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& x : values) x = normal(rng);
  return values;
}

struct Shape {
  int heads, nope, rope, value;
  std::vector<int> lengths;
  std::vector<int> branches = {};  // of the last sequence
};

struct Gradients {
  std::vector<float> q, kv, shared;
  bool operator==(const Gradients&) const = default;
};

/// Random inputs of a shape and what the kernel makes of them.
class Attention {
 public:
  explicit Attention(const Shape& shape) : s_(shape) {
    int trunk = -1;
    for (int length : s_.lengths) trunk = pack_.Add(std::vector<std::int32_t>(length));
    for (int length : s_.branches) pack_.AddBranch(trunk, std::vector<std::int32_t>(length));
    const std::size_t t = pack_.tokens();
    q_ = Random(t * s_.heads * Dim(), 1);
    kv_ = Random(t * s_.heads * (s_.nope + s_.value), 2);
    shared_ = Random(t * LdShared(), 3);
    g_ = Random(t * s_.heads * s_.value, 4);
  }

  Gradients Find(int threads) const {
    const float nan = std::nanf("");
    Gradients d{std::vector<float>(q_.size(), nan), std::vector<float>(kv_.size(), nan),
                std::vector<float>(std::size_t(pack_.tokens()) * s_.heads * s_.rope, nan)};
    AttentionGradientArgs a;
    a.pack = &pack_;
    a.heads = s_.heads;
    a.nope = s_.nope;
    a.rope = s_.rope;
    a.value = s_.value;
    a.scale = kScale;
    a.q = q_.data();
    a.kv = kv_.data();
    a.shared = shared_.data();
    a.ld_shared = LdShared();
    a.g = g_.data();
    a.d_q = d.q.data();
    a.d_kv = d.kv.data();
    a.d_shared = d.shared.data();
    kernels::ThreadPool pool(threads);
    AttentionGradient(a, pool);
    return d;
  }

  /// By the definition, in double.
  Gradients Want() const {
    std::vector<double> dq(q_.size()), dkv(kv_.size()),
        ds(std::size_t(pack_.tokens()) * s_.heads * s_.rope);
    for (int s = 0; s < pack_.sequences(); ++s) {
      std::vector<int> seen;  // tokens by position
      for (int part : {pack_.trunk[s], s}) {
        for (int t = part < 0 ? 0 : pack_.start[part]; part >= 0 && t < pack_.start[part + 1];
             ++t) {
          seen.push_back(t);
          if (part != s) continue;
          for (int h = 0; h < s_.heads; ++h) Query(seen, h, dq, dkv, ds);
        }
      }
    }
    return {{dq.begin(), dq.end()}, {dkv.begin(), dkv.end()}, {ds.begin(), ds.end()}};
  }

 private:
  static constexpr float kScale = 0.2f;
  int Dim() const { return s_.nope + s_.rope; }
  int LdShared() const { return s_.rope + 5; }
  std::size_t At(int t, int h, int d) const { return (std::size_t(t) * s_.heads + h) * d; }

  /// The last of `seen` asks all of them.
  void Query(const std::vector<int>& seen, int h, std::vector<double>& dq, std::vector<double>& dkv,
             std::vector<double>& ds) const {
    const int i = seen.back();
    const int head = s_.nope + s_.value;
    const auto key = [&](int j, int d) {
      return double(d < s_.nope ? kv_[At(j, h, head) + d]
                                : shared_[std::size_t(j) * LdShared() + d - s_.nope]);
    };
    const float* g = g_.data() + At(i, h, s_.value);
    std::vector<double> p(i + 1), dp(i + 1);
    double sum = 0, inner = 0;
    for (int j : seen) {
      double score = 0;
      for (int d = 0; d < Dim(); ++d) score += q_[At(i, h, Dim()) + d] * key(j, d);
      p[j] = std::exp(kScale * score);
      sum += p[j];
      for (int d = 0; d < s_.value; ++d) dp[j] += g[d] * kv_[At(j, h, head) + s_.nope + d];
    }
    for (int j : seen) {
      p[j] /= sum;
      inner += p[j] * dp[j];
    }
    for (int j : seen) {
      const double d_score = kScale * p[j] * (dp[j] - inner);
      for (int d = 0; d < s_.value; ++d) dkv[At(j, h, head) + s_.nope + d] += p[j] * g[d];
      for (int d = 0; d < Dim(); ++d) {
        const double d_key = d_score * q_[At(i, h, Dim()) + d];
        dq[At(i, h, Dim()) + d] += d_score * key(j, d);
        (d < s_.nope ? dkv[At(j, h, head) + d] : ds[At(j, h, s_.rope) + d - s_.nope]) += d_key;
      }
    }
  }

  Shape s_;
  Pack pack_;
  std::vector<float> q_, kv_, shared_, g_;
};

double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 1e-30;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(double(a[i]) - b[i], 2);
    norm += std::pow(double(b[i]), 2);
  }
  return std::sqrt(difference / norm);  // NaN where one was left
}

class AttentionGradientTest : public testing::TestWithParam<Shape> {};

TEST_P(AttentionGradientTest, IsTheGradientOfCausalSoftmaxAttention) {
  const Attention attention(GetParam());
  const Gradients found = attention.Find(2), want = attention.Want();
  EXPECT_LT(Distance(found.q, want.q), 2e-6);
  EXPECT_LT(Distance(found.kv, want.kv), 2e-6);
  EXPECT_LT(Distance(found.shared, want.shared), 2e-6);
}

TEST_P(AttentionGradientTest, HasTheSameBitsForAnyNumberOfThreads) {
  const Attention attention(GetParam());
  const Gradients one = attention.Find(1);
  EXPECT_TRUE(one == attention.Find(2));
  EXPECT_TRUE(one == attention.Find(3));
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionGradientTest,
    testing::Values(Shape{4, 16, 16, 32, {20, 1, 33, 16, 17, 0, 2}},
                    Shape{3, 5, 6, 7, {1, 3, 0, 31}}, Shape{2, 24, 8, 20, {64, 65, 15}},
                    Shape{1, 10, 2, 3, {129, 200}}, Shape{2, 8, 4, 40, {500}},
                    Shape{1, 1, 2, 1, {1}}, Shape{3, 16, 8, 12, {5, 20}, {17, 1, 0, 70, 3}},
                    Shape{2, 6, 2, 9, {131}, {64, 15, 129}}, Shape{2, 6, 2, 9, {1}, {1, 2}}));

TEST(PackingTest, TransposesAnyShape) {
  for (const auto& [rows, columns] : {std::pair{1, 1}, {8, 8}, {9, 17}, {16, 7}, {3, 40}}) {
    const int ldf = columns + 2, ldt = rows + 3;
    const std::vector<float> from = Random(rows * ldf, 5);
    std::vector<float> to(columns * ldt, 7);
    Transpose(from.data(), ldf, rows, columns, to.data(), ldt);
    for (int j = 0; j < columns; ++j) {
      for (int i = 0; i < ldt; ++i) ASSERT_EQ(to[j * ldt + i], i < rows ? from[i * ldf + j] : 7);
    }
  }
}

}  // namespace
}  // namespace temper::learner
