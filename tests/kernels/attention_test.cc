#include "kernels/attention.h"

#include <cmath>
#include <memory>
#include <stdexcept>

#include "tests/kernels/testing.h"

namespace temper::kernels {
namespace {

/// Sequences with scattered keys: `stride` floats a token, the layer's part at `offset`, NaN
/// elsewhere.
struct Cache {
  Cache(int tokens, int dim, std::uint64_t seed, int offset = 7, int tail = 5)
      : offset(offset), stride(offset + dim + tail), memory(std::size_t(tokens) * stride, kNan) {
    const std::vector<float> values = Normal(std::size_t(tokens) * dim, seed);
    for (int t = 0; t < tokens; ++t) {
      // Scattered: token t lies where another would in order.
      float* base = memory.data() + std::size_t(t * 7919LL % tokens) * stride;
      for (int d = 0; d < dim; ++d) base[offset + d] = values[std::size_t(t) * dim + d];
      key.push_back(base);
    }
  }
  Cache(Cache&&) = default;
  // The keys of a copy would point into the original.
  Cache(const Cache&) = delete;
  int offset, stride;
  std::vector<float> memory;
  std::vector<const float*> key;
};

struct Problem {
  int heads, latent, rope;
  std::vector<AttentionRow> rows;
  std::vector<float> q;
  std::int64_t offset;
  float scale = 0.2f;
};

std::vector<float> Attend(const Problem& p, ThreadPool& pool) {
  std::vector<float> o(p.rows.size() * p.heads * p.latent + 1, kNan);
  MlaAttention(p.q.data(), p.rows.data(), int(p.rows.size()), p.heads, p.latent, p.rope, p.scale,
               p.offset, o.data(), pool);
  return o;
}

std::vector<float> AttendDouble(const Problem& p) {
  std::vector<float> o;
  const int dim = p.latent + p.rope;
  for (std::size_t r = 0; r < p.rows.size(); ++r) {
    for (int h = 0; h < p.heads; ++h) {
      const float* q = p.q.data() + (r * p.heads + h) * dim;
      std::vector<double> s, sum(p.latent);
      double most = -1e300, total = 0;
      for (int j = 0; j < p.rows[r].count; ++j) {
        double dot = 0;
        for (int d = 0; d < dim; ++d) dot += double(q[d]) * p.rows[r].keys[j][p.offset + d];
        s.push_back(dot * p.scale);
        most = std::max(most, s.back());
      }
      for (int j = 0; j < p.rows[r].count; ++j) {
        const double e = std::exp(s[j] - most);
        total += e;
        for (int d = 0; d < p.latent; ++d) sum[d] += e * p.rows[r].keys[j][p.offset + d];
      }
      for (double v : sum) o.push_back(float(v / total));
    }
  }
  return o;
}

/// `sequences` of training rows: counts 1 .. length.
Problem Causal(const std::vector<Cache>& caches, int heads, int latent, int rope) {
  Problem p{heads, latent, rope, {}, {}, caches[0].offset};
  for (const Cache& cache : caches) {
    for (int i = 0; i < int(cache.key.size()); ++i) p.rows.push_back({cache.key.data(), i + 1});
  }
  p.q = Normal(p.rows.size() * heads * (latent + rope), 99);
  return p;
}

void ExpectEveryVariantAgrees(const Problem& p, const std::string& what) {
  std::vector<float> want;
  {
    const WithIsa with(Isa::kScalar);
    ThreadPool pool(1);
    want = Attend(p, pool);
  }
  for (Isa isa : Variants()) {
    const WithIsa with(isa);
    for (int threads : {1, 2, 3}) {
      ThreadPool pool(threads);
      ASSERT_TRUE(SameBits(want, Attend(p, pool)))
          << what << ", " << IsaName(isa) << ", " << threads;
    }
  }
  const std::vector<float> exact = AttendDouble(p);
  for (std::size_t i = 0; i < exact.size(); ++i)
    ASSERT_NEAR(want[i], exact[i], 4e-5) << what << " " << i;
}

TEST(AttentionTest, EveryVariantAgreesOnCausalSequencesOfRaggedShapes) {
  struct Shape {
    int heads, latent, rope;
  };
  for (const Shape s : {Shape{4, 32, 16}, Shape{1, 16, 0}, Shape{3, 40, 6}, Shape{7, 5, 2},
                        Shape{2, 64, 16}, Shape{1, 130, 10}, Shape{16, 48, 8}}) {
    std::vector<Cache> caches;
    for (int tokens : {1, 2, 15, 16, 17, 33, 50})
      caches.emplace_back(tokens, s.latent + s.rope, tokens);
    ExpectEveryVariantAgrees(
        Causal(caches, s.heads, s.latent, s.rope),
        "latent " + std::to_string(s.latent) + " rope " + std::to_string(s.rope));
  }
}

TEST(AttentionTest, LongSequencesCrossTheSplitsOf256AndTheBlocksOf128) {
  std::vector<Cache> caches;
  caches.emplace_back(530, 24 + 8, 3);
  ExpectEveryVariantAgrees(Causal(caches, 2, 24, 8), "530 keys");
  for (int count : {127, 128, 129, 255, 256, 257, 511, 512, 513, 530}) {
    Problem p{4, 24, 8, {{caches[0].key.data(), count}}, Normal(4 * 32, count), caches[0].offset};
    ExpectEveryVariantAgrees(p, "count " + std::to_string(count));
  }
}

TEST(AttentionTest, ManyDecodeRowsOfDifferentSequencesAgree) {
  std::vector<Cache> caches;
  Problem p{4, 32, 16, {}, {}, 7};
  for (int i = 0; i < 200; ++i) caches.emplace_back(5 + i % 40, 48, i);
  for (const Cache& cache : caches) p.rows.push_back({cache.key.data(), int(cache.key.size())});
  p.q = Normal(p.rows.size() * 4 * 48, 5);
  ExpectEveryVariantAgrees(p, "decode");
}

TEST(AttentionTest, CountsInAnyOrderAgree) {
  std::vector<Cache> caches;
  caches.emplace_back(600, 20, 3);
  Problem p{3, 16, 4, {}, {}, caches[0].offset};
  for (int count : {600, 1, 300, 256, 257, 599, 2, 3, 512, 40, 41, 42, 1, 1, 580}) {
    p.rows.push_back({caches[0].key.data(), count});
  }
  p.q = Normal(p.rows.size() * 3 * 20, 5);
  ExpectEveryVariantAgrees(p, "shuffled counts");
}

TEST(AttentionTest, ARowDoesNotDependOnItsNeighbours) {
  std::vector<Cache> caches;
  caches.emplace_back(300, 48, 1);
  const Problem batch = Causal(caches, 4, 32, 16);
  for (Isa isa : Variants()) {
    const WithIsa with(isa);
    ThreadPool pool(2);
    const std::vector<float> all = Attend(batch, pool);
    for (int r = 0; r < 300; r += 13) {
      Problem one = batch;
      one.rows = {batch.rows[r]};
      one.q.assign(batch.q.begin() + r * 4 * 48, batch.q.begin() + (r + 1) * 4 * 48);
      std::vector<float> want(all.begin() + r * 4 * 32, all.begin() + (r + 1) * 4 * 32);
      want.push_back(kNan);
      ASSERT_TRUE(SameBits(want, Attend(one, pool))) << IsaName(isa) << " row " << r;
    }
  }
}

TEST(AttentionTest, AKeyThatARowCannotSeeMayHoldAnything) {
  std::vector<Cache> clean, poisoned;
  clean.emplace_back(40, 48, 1);
  poisoned.emplace_back(40, 48, 1);
  const std::ptrdiff_t key = poisoned[0].key[30] - poisoned[0].memory.data();
  for (int d = 0; d < 48; ++d) poisoned[0].memory[key + poisoned[0].offset + d] = kNan;
  for (int heads : {1, 2, 3, 4, 7}) {
    const Problem sound = Causal(clean, heads, 32, 16), p = Causal(poisoned, heads, 32, 16);
    for (Isa isa : Variants()) {
      const WithIsa with(isa);
      ThreadPool pool(1);
      std::vector<float> a = Attend(sound, pool), b = Attend(p, pool);
      const std::size_t seen = std::size_t(30) * heads * 32;
      EXPECT_TRUE(std::isnan(b[seen]));
      a.resize(seen), b.resize(seen);
      EXPECT_TRUE(SameBits(a, b)) << IsaName(isa) << ", " << heads << " heads";
      for (float v : a) ASSERT_FALSE(std::isnan(v));
    }
  }
}

TEST(AttentionTest, OneKeyIsReturnedAsItIs) {
  const Cache cache(1, 48, 1);
  Problem p{1, 32, 16, {{cache.key.data(), 1}}, Normal(48, 2), cache.offset};
  for (Isa isa : Variants()) {
    const WithIsa with(isa);
    ThreadPool pool(1);
    const std::vector<float> o = Attend(p, pool);
    for (int d = 0; d < 32; ++d) EXPECT_EQ(o[d], cache.key[0][cache.offset + d]);
  }
}

TEST(AttentionTest, RefusesARowThatSeesNothing) {
  const Cache cache(1, 4, 1);
  Problem p{1, 2, 2, {{cache.key.data(), 0}}, Normal(4, 2), cache.offset};
  ThreadPool pool(1);
  EXPECT_THROW(Attend(p, pool), std::logic_error);
}

}  // namespace
}  // namespace temper::kernels
