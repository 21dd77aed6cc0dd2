#include "bench/rates.h"

#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <new>

#include "kernels/cpu.h"

namespace temper::bench {
namespace {

constexpr int kFmaLoops = 20000, kFmaChains = 12;

/// Independent chains in registers: as many as hide the latency. Needs no compiler flag of its own.
[[gnu::target("avx2,fma")]] void FmaChains() {
  __m256 a[kFmaChains];
#pragma GCC unroll 12
  for (int i = 0; i < kFmaChains; ++i) a[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
  for (int n = 0; n < kFmaLoops; ++n) {
#pragma GCC unroll 12
    for (int i = 0; i < kFmaChains; ++i) a[i] = _mm256_fmadd_ps(a[i], x, y);
  }
#pragma GCC unroll 12
  for (int i = 1; i < kFmaChains; ++i) a[0] = _mm256_add_ps(a[0], a[i]);
  // An impossible branch keeps the sum alive.
  if (_mm256_cvtss_f32(a[0]) == 12345.0f) std::abort();
}

[[gnu::target("avx512f")]] void WideFmaChains() {
  __m512 a[kFmaChains];
#pragma GCC unroll 12
  for (int i = 0; i < kFmaChains; ++i) a[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
  for (int n = 0; n < kFmaLoops; ++n) {
#pragma GCC unroll 12
    for (int i = 0; i < kFmaChains; ++i) a[i] = _mm512_fmadd_ps(a[i], x, y);
  }
#pragma GCC unroll 12
  for (int i = 1; i < kFmaChains; ++i) a[0] = _mm512_add_ps(a[0], a[i]);
  if (_mm512_cvtss_f32(a[0]) == 12345.0f) std::abort();
}

constexpr std::size_t kReadBytes = std::size_t{512} << 20, kReadPart = std::size_t{1} << 20;

[[gnu::target("avx2")]] void Read(const char* from) {
  __m256i sum[4] = {};
  for (std::size_t i = 0; i < kReadPart; i += 128) {
    for (std::size_t j = 0; j < 4; ++j) {
      const auto* at = reinterpret_cast<const __m256i*>(from + i + 32 * j);
      sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256(at));
    }
  }
  const __m256i all =
      _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  if (_mm256_extract_epi32(all, 0) == 12345 && _mm256_extract_epi32(all, 1) == 54321) std::abort();
}

}  // namespace

double Now(int threads) {
  timespec t{};
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double Seconds(const std::function<void()>& body, int threads) {
  body();
  double best = 1e9;
  int calls = 1;
  for (const double end = Now(threads) + 0.15; Now(threads) < end;) {
    const double start = Now(threads);
    for (int i = 0; i < calls; ++i) body();
    const double t = Now(threads) - start;
    best = std::min(best, t / calls);
    if (t < 1e-3) calls *= 2;
  }
  return best;
}

double Once(const std::function<void()>& body, int threads) {
  const double start = Now(threads);
  body();
  return Now(threads) - start;
}

double Median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}

double FmaRate(kernels::ThreadPool& pool) {
  const int threads = pool.threads();
  const bool wide = kernels::ActiveIsa() == kernels::Isa::kAvx512;
  const double t = Seconds(
      [&] { pool.Run(threads, [=](int) { wide ? WideFmaChains() : FmaChains(); }); }, threads);
  return 2.0 * (wide ? 16 : 8) * kFmaChains * kFmaLoops * threads / t * 1e-9;
}

double ReadRate(kernels::ThreadPool& pool) {
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  const std::unique_ptr<char, Free> memory(
      static_cast<char*>(std::aligned_alloc(std::size_t{2} << 20, kReadBytes)));
  if (!memory) throw std::bad_alloc();
  madvise(memory.get(), kReadBytes, MADV_HUGEPAGE);  // as the weights lie
  std::fill_n(memory.get(), kReadBytes, static_cast<char>(1));
  const int parts = static_cast<int>(kReadBytes / kReadPart);
  const auto read = [&](int i) { Read(memory.get() + static_cast<std::size_t>(i) * kReadPart); };
  const double t = Once([&] { pool.Run(parts, read); }, pool.threads());
  return static_cast<double>(kReadBytes) / t * 1e-9;
}

std::vector<float> Floats(std::size_t n) {
  std::vector<float> x(n);
  unsigned state = 1;
  for (float& v : x) {
    state = state * 1664525u + 1013904223u;
    v = static_cast<float>(state >> 8) * 0x1p-24f - 0.5f;
  }
  return x;
}

}  // namespace temper::bench
