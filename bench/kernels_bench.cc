// How near the kernels come to this machine: GFLOP/s of Linear beside the FMA rate measured in the
// same run.
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu.h"
#include "kernels/linear.h"
#include "kernels/ops.h"
#include "kernels/router.h"
#include "kernels/sampling.h"

namespace temper::kernels {
namespace {

/// With one thread its own processor time, which other programs' load doesn't lengthen; else the
/// clock.
double Now(int threads) {
  timespec t{};
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

int threads_used = 1;

double Seconds(const std::function<void()>& body) {
  body();
  double best = 1e9;
  int calls = 1;
  for (const double end = Now(threads_used) + 0.15; Now(threads_used) < end;) {
    const double start = Now(threads_used);
    for (int i = 0; i < calls; ++i) body();
    const double t = Now(threads_used) - start;
    best = std::min(best, t / calls);
    if (t < 1e-3) calls *= 2;
  }
  return best;
}

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

/// GFLOP/s of AVX2 multiply-adds on every thread of the pool: the limit.
double FmaRate(ThreadPool& pool) {
  const int threads = pool.threads();
  const double t = Seconds([&] { pool.Run(threads, [](int) { FmaChains(); }); });
  return 2.0 * 8 * kFmaChains * kFmaLoops * threads / t * 1e-9;
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

void BenchLinear(int m, int n, int k, ThreadPool& pool) {
  const std::vector<float> w = Floats(PackedSize(n, k)),
                           x = Floats(static_cast<std::size_t>(m) * k);
  std::vector<float> y(static_cast<std::size_t>(m) * n);
  const double t = Seconds([&] { Linear({w.data(), n, k}, x.data(), k, m, y.data(), n, pool); });
  std::printf("linear  m %5d n %5d k %5d  %9.1f us  %7.1f GFLOP/s  %6.1f GB/s weights\n", m, n, k,
              t * 1e6, 2e-9 * m * n * k / t, 4e-9 * n * k / t);
}

void BenchAttention(const char* what, int sequences, int keys, bool all_rows, int heads, int latent,
                    int rope, ThreadPool& pool) {
  const int dim = latent + rope;
  const std::vector<float> cache = Floats(static_cast<std::size_t>(sequences) * keys * dim);
  std::vector<const float*> key;
  for (int i = 0; i < sequences * keys; ++i)
    key.push_back(cache.data() + static_cast<std::size_t>(i) * dim);
  std::vector<AttentionRow> rows;
  double pairs = 0;
  for (int s = 0; s < sequences; ++s) {
    for (int r = all_rows ? 1 : keys; r <= keys; ++r) {
      rows.push_back({key.data() + s * keys, r});
      pairs += r;
    }
  }
  const int m = static_cast<int>(rows.size());
  const std::vector<float> q = Floats(static_cast<std::size_t>(m) * heads * dim);
  std::vector<float> o(static_cast<std::size_t>(m) * heads * latent);
  const double t = Seconds([&] {
    MlaAttention(q.data(), rows.data(), m, heads, latent, rope, 0.2f, 0, o.data(), pool);
  });
  std::printf("attend  %-9s %5d x %4d keys  %9.1f us  %7.1f GFLOP/s  %6.0f ns a row\n", what,
              sequences, keys, t * 1e6, 2e-9 * pairs * heads * (2 * latent + rope) / t,
              t / m * 1e9);
}

void BenchRows(ThreadPool& pool) {
  const int m = 1000, d = 192, v = 264;
  const std::vector<float> x = Floats(m * 2 * v), weight = Floats(v);
  std::vector<float> y(m * 2 * v);
  const double norm =
      Seconds([&] { RmsNorm(x.data(), d, weight.data(), 1e-6f, m, d, y.data(), d, pool); });
  const double swiglu = Seconds([&] { SwiGlu(x.data(), 2 * d, m, d, y.data(), d, pool); });
  const double lse = Seconds([&] { LogSumExp(x.data(), v, m, v, 1.0f, y.data(), pool); });
  std::vector<std::int32_t> ids(m * 8);
  const RouterShape shape{64, 8, 8, 4, true, 2.5f};
  const double route = Seconds([&] {
    Route(x.data(), 64, weight.data(), shape, m, nullptr, ids.data(), y.data(), pool);
  });
  const double sample = Seconds([&] { SampleToken(x.data(), v, v, {}, 0.5f); });
  const int large = 129280;
  const std::vector<float> logits = Floats(large);
  const double sample_large = Seconds([&] { SampleToken(logits.data(), large, large, {}, 0.5f); });
  const double top_p = Seconds([&] {
    SampleToken(logits.data(), large, large, {1.0f, 0, 0.9f, 0.0f}, 0.5f);
  });
  const double lse_large =
      Seconds([&] { LogSumExp(logits.data(), large, 1, large, 1.0f, y.data(), pool); });
  std::printf(
      "rows    rms_norm 192 %5.0f ns  swiglu 192 %5.0f ns  lse 264 %5.0f ns  route 64 %5.0f ns\n",
      norm / m * 1e9, swiglu / m * 1e9, lse / m * 1e9, route / m * 1e9);
  std::printf("sample  v 264 %6.2f us  v 129280 %6.1f us, top_p 0.9 %6.1f us, lse %6.1f us\n",
              sample * 1e6, sample_large * 1e6, top_p * 1e6, lse_large * 1e6);
  std::atomic<int> sum{0};
  const double run = Seconds([&] { pool.Run(pool.threads(), [&](int i) { sum += i; }); });
  std::printf("pool    an empty region %5.0f ns\n", run * 1e9);
}

void Run(int threads) {
  ThreadPool pool(threads);
  threads_used = threads;
  std::printf("# %s, %s, %d threads, AVX2 FMA rate %.0f GFLOP/s\n", CpuDescription().c_str(),
              IsaName(ActiveIsa()).c_str(), threads, FmaRate(pool));
  for (int m : {1, 4, 8, 32, 192, 1000}) {
    BenchLinear(m, 256, 256, pool);
    BenchLinear(m, 64, 96, pool);
    BenchLinear(m, 1024, 256, pool);
  }
  BenchLinear(192, 1024, 1024, pool);
  BenchLinear(1, 4096, 4096, pool);
  BenchLinear(256, 4096, 4096, pool);
  BenchAttention("decode", 1000, 20, false, 4, 32, 16, pool);
  BenchAttention("decode", 64, 20, false, 4, 32, 16, pool);
  BenchAttention("training", 60, 25, true, 4, 64, 16, pool);
  BenchAttention("prefill", 1, 2000, true, 4, 64, 16, pool);
  BenchAttention("V3 decode", 4, 2000, false, 128, 512, 64, pool);
  BenchRows(pool);
  std::printf("# FMA rate after: %.0f GFLOP/s\n", FmaRate(pool));
}

}  // namespace
}  // namespace temper::kernels

/// kernels_bench [THREADS]; TEMPER_ISA chooses the variant.
int main(int argc, char** argv) {
  temper::kernels::Run(argc > 1 ? std::max(1, std::atoi(argv[1])) : 1);
  return 0;
}
