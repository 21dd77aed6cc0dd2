#include "kernels/attention.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <stdexcept>

#include "tests/kernels/testing.h"

namespace temper::kernels {
namespace {

/// A sequence with scattered keys: the layer's part at `offset` bytes, NaN elsewhere.
struct Cache {
  Cache(int tokens, int latent, int rope, std::uint64_t seed, CacheType type = CacheType::kF32)
      : type(type), latent(latent), rope(rope), stride(kOffset + Bytes() + 16) {
    // All bits set: NaN as float, BF16 and E4M3.
    memory.assign(std::size_t(tokens) * stride, 0xFF);
    const int dim = latent + rope;
    const std::vector<float> values = Normal(std::size_t(tokens) * dim, seed);
    for (int t = 0; t < tokens; ++t) {
      // Scattered: token t lies where another would in order.
      unsigned char* base = memory.data() + std::size_t(t * 7919LL % tokens) * stride;
      StoreCacheRow(type, values.data() + std::size_t(t) * dim, latent, rope, base + kOffset);
      key.push_back(base);
    }
  }
  Cache(Cache&&) = default;
  // The keys of a copy would point into the original.
  Cache(const Cache&) = delete;

  static constexpr std::int64_t kOffset = 28;
  std::size_t Bytes() const { return CacheRowBytes(type, latent, rope); }
  void Poison(int token) { std::memset(const_cast<unsigned char*>(Row(token)), 0xFF, Bytes()); }
  const unsigned char* Row(int token) const {
    return static_cast<const unsigned char*>(key[token]) + kOffset;
  }

  CacheType type;
  int latent, rope;
  std::size_t stride;
  std::vector<unsigned char> memory;
  std::vector<const void*> key;
};

struct Problem {
  int heads, latent, rope;
  std::vector<AttentionRow> rows;
  std::vector<float> q;
  CacheType type = CacheType::kF32;
  float scale = 0.2f;
};

constexpr CacheType kTypes[] = {CacheType::kF32, CacheType::kBf16, CacheType::kFp8};

std::vector<float> Attend(const Problem& p, ThreadPool& pool) {
  std::vector<float> o(p.rows.size() * p.heads * p.latent + 1, kNan);
  MlaAttention(p.q.data(), p.rows.data(), int(p.rows.size()), p.heads, p.latent, p.rope, p.scale,
               p.type, Cache::kOffset, o.data(), pool);
  return o;
}

std::vector<float> Key(const Problem& p, const void* base) {
  std::vector<float> key(p.latent + p.rope);
  LoadCacheRow(p.type, static_cast<const unsigned char*>(base) + Cache::kOffset, p.latent, p.rope,
               key.data());
  return key;
}

std::vector<float> AttendDouble(const Problem& p) {
  std::vector<float> o;
  const int dim = p.latent + p.rope;
  for (std::size_t r = 0; r < p.rows.size(); ++r) {
    std::vector<std::vector<float>> key;
    for (int j = 0; j < p.rows[r].count; ++j) key.push_back(Key(p, p.rows[r].keys[j]));
    for (int h = 0; h < p.heads; ++h) {
      const float* q = p.q.data() + (r * p.heads + h) * dim;
      std::vector<double> s, sum(p.latent);
      double most = -1e300, total = 0;
      for (const std::vector<float>& k : key) {
        double dot = 0;
        for (int d = 0; d < dim; ++d) dot += double(q[d]) * k[d];
        s.push_back(dot * p.scale);
        most = std::max(most, s.back());
      }
      for (std::size_t j = 0; j < key.size(); ++j) {
        const double e = std::exp(s[j] - most);
        total += e;
        for (int d = 0; d < p.latent; ++d) sum[d] += e * key[j][d];
      }
      for (double v : sum) o.push_back(float(v / total));
    }
  }
  return o;
}

/// `sequences` of training rows: counts 1 .. length.
Problem Causal(const std::vector<Cache>& caches, int heads) {
  const int latent = caches[0].latent, rope = caches[0].rope;
  Problem p{heads, latent, rope, {}, {}, caches[0].type};
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
  // Double keeps up with short sequences only.
  if (p.rows.size() * p.heads * p.rows.back().count > 300000) return;
  const std::vector<float> exact = AttendDouble(p);
  for (std::size_t i = 0; i < exact.size(); ++i)
    ASSERT_NEAR(want[i], exact[i], 4e-5) << what << " " << i;
}

TEST(AttentionTest, EveryVariantAgreesOnCausalSequencesOfRaggedShapes) {
  struct Shape {
    int heads, latent, rope;
  };
  for (CacheType type : kTypes) {
    for (const Shape s : {Shape{4, 32, 16}, Shape{1, 16, 0}, Shape{3, 40, 6}, Shape{7, 5, 2},
                          Shape{2, 64, 16}, Shape{1, 130, 10}, Shape{16, 48, 8}}) {
      std::vector<Cache> caches;
      for (int tokens : {1, 2, 15, 16, 17, 33, 50})
        caches.emplace_back(tokens, s.latent, s.rope, tokens, type);
      ExpectEveryVariantAgrees(Causal(caches, s.heads), "latent " + std::to_string(s.latent) +
                                                            " rope " + std::to_string(s.rope));
    }
  }
}

TEST(AttentionTest, LongSequencesCrossTheSplitsOf256AndTheBlocksOf128) {
  for (CacheType type : kTypes) {
    std::vector<Cache> caches;
    caches.emplace_back(530, 24, 8, 3, type);
    ExpectEveryVariantAgrees(Causal(caches, 2), "530 keys");
    for (int count : {127, 128, 129, 255, 256, 257, 511, 512, 513, 530}) {
      Problem p{4, 24, 8, {{caches[0].key.data(), count}}, Normal(4 * 32, count), type};
      ExpectEveryVariantAgrees(p, "count " + std::to_string(count));
    }
  }
}

TEST(AttentionTest, ManyDecodeRowsOfDifferentSequencesAgree) {
  for (CacheType type : kTypes) {
    std::vector<Cache> caches;
    Problem p{4, 32, 16, {}, {}, type};
    for (int i = 0; i < 200; ++i) caches.emplace_back(5 + i % 40, 32, 16, i, type);
    for (const Cache& cache : caches) p.rows.push_back({cache.key.data(), int(cache.key.size())});
    p.q = Normal(p.rows.size() * 4 * 48, 5);
    ExpectEveryVariantAgrees(p, "decode");
  }
}

/// Sequences of `prefix` shared keys and tails of their own, `lengths` in all.
struct Group {
  Group(int prefix, const std::vector<int>& lengths, int latent, int rope, CacheType type)
      : common(prefix, latent, rope, 1, type) {
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      tails.emplace_back(lengths[i], latent, rope, 2 + i, type);
      keys.push_back(common.key);
      keys.back().insert(keys.back().end(), tails[i].key.begin(), tails[i].key.end());
    }
  }
  Cache common;
  std::vector<Cache> tails;
  std::vector<std::vector<const void*>> keys;
};

TEST(AttentionTest, RowsThatShareAPrefixAreEachAsIfAlone) {
  for (CacheType type : kTypes) {
    for (int prefix : {10, 255, 256, 300, 520}) {
      for (int heads : {1, 4, 16}) {
        const Group group(prefix, {1, 40, 3, 3, 270, 16, 1, 2}, 24, 8, type);
        Problem p{heads, 24, 8, {}, {}, type};
        for (const auto& keys : group.keys) p.rows.push_back({keys.data(), int(keys.size())});
        p.rows.push_back({group.keys[1].data(), prefix});  // a row that hasn't left the prefix yet
        p.q = Normal(p.rows.size() * heads * 32, 5);
        ExpectEveryVariantAgrees(p, "prefix " + std::to_string(prefix));
        ThreadPool pool(2);
        const std::vector<float> all = Attend(p, pool);
        for (std::size_t r = 0; r < p.rows.size(); ++r) {
          Problem one = p;
          one.rows = {p.rows[r]};
          one.q.assign(p.q.begin() + r * heads * 32, p.q.begin() + (r + 1) * heads * 32);
          std::vector<float> want(all.begin() + r * heads * 24, all.begin() + (r + 1) * heads * 24);
          want.push_back(kNan);
          ASSERT_TRUE(SameBits(want, Attend(one, pool))) << prefix << " row " << r;
        }
      }
    }
  }
}

TEST(AttentionTest, CountsInAnyOrderAgree) {
  std::vector<Cache> caches;
  caches.emplace_back(600, 16, 4, 3);
  Problem p{3, 16, 4, {}, {}};
  for (int count : {600, 1, 300, 256, 257, 599, 2, 3, 512, 40, 41, 42, 1, 1, 580}) {
    p.rows.push_back({caches[0].key.data(), count});
  }
  p.q = Normal(p.rows.size() * 3 * 20, 5);
  ExpectEveryVariantAgrees(p, "shuffled counts");
}

TEST(AttentionTest, ARowDoesNotDependOnItsNeighbours) {
  std::vector<Cache> caches;
  caches.emplace_back(300, 32, 16, 1);
  const Problem batch = Causal(caches, 4);
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
  for (CacheType type : kTypes) {
    std::vector<Cache> clean, poisoned;
    clean.emplace_back(40, 32, 16, 1, type);
    poisoned.emplace_back(40, 32, 16, 1, type);
    poisoned[0].Poison(30);
    for (int heads : {1, 2, 3, 4, 7, 16}) {
      const Problem sound = Causal(clean, heads), p = Causal(poisoned, heads);
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
}

TEST(AttentionTest, AStoredKeyThatChangesByOneBitChangesTheResult) {
  // What the comparisons above rest on: they would see a wrong key.
  for (CacheType type : kTypes) {
    Cache cache(300, 32, 16, 1, type);
    Problem p{2, 32, 16, {{cache.key.data(), 300}}, Normal(2 * 48, 2), type};
    ThreadPool pool(1);
    const std::vector<float> before = Attend(p, pool);
    const_cast<unsigned char*>(cache.Row(280))[type == CacheType::kF32 ? 2 : 0] ^= 1;
    EXPECT_FALSE(SameBits(before, Attend(p, pool)));
  }
}

TEST(AttentionTest, OneKeyIsReturnedAsItIs) {
  for (CacheType type : kTypes) {
    const Cache cache(1, 32, 16, 1, type);
    Problem p{1, 32, 16, {{cache.key.data(), 1}}, Normal(48, 2), type};
    const std::vector<float> key = Key(p, cache.key[0]);
    for (Isa isa : Variants()) {
      const WithIsa with(isa);
      ThreadPool pool(1);
      const std::vector<float> o = Attend(p, pool);
      for (int d = 0; d < 32; ++d) EXPECT_EQ(o[d], key[d]);
    }
  }
}

TEST(AttentionTest, RefusesARowThatSeesNothing) {
  const Cache cache(1, 2, 2, 1);
  Problem p{1, 2, 2, {{cache.key.data(), 0}}, Normal(4, 2)};
  ThreadPool pool(1);
  EXPECT_THROW(Attend(p, pool), std::logic_error);
}

}  // namespace
}  // namespace temper::kernels
