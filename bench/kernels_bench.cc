// How near the kernels come to this machine: GFLOP/s of Linear beside the FMA rate measured in the
// same run.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "bench/linear_bench.h"
#include "bench/rates.h"
#include "kernels/attention.h"
#include "kernels/cpu.h"
#include "kernels/linear.h"
#include "kernels/ops.h"
#include "kernels/router.h"
#include "kernels/sampling.h"

namespace temper::kernels {
namespace {

using bench::Floats;
using bench::FmaRate;

int threads_used = 1;

double Seconds(const std::function<void()>& body) { return bench::Seconds(body, threads_used); }

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
  std::vector<const void*> key;
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
    MlaAttention(q.data(), rows.data(), m, heads, latent, rope, 0.2f, CacheType::kF32, 0, o.data(),
                 pool);
  });
  std::printf("attend  %-9s %5d x %4d keys  %9.1f us  %7.1f GFLOP/s  %6.0f ns a row\n", what,
              sequences, keys, t * 1e6, 2e-9 * pairs * heads * (2 * latent + rope) / t,
              t / m * 1e9);
}

/// Rows of a group that share a prefix of 1,024 keys, each with a tail of 32 of its own; beside the
/// same without sharing. The heads of DeepSeek-V2-Lite.
void BenchShared(CacheType type, const char* name, ThreadPool& pool) {
  const int heads = 16, latent = 512, rope = 64, dim = latent + rope, prefix = 1024, tail = 32;
  const std::size_t bytes = CacheRowBytes(type, latent, rope);
  const std::vector<float> row = Floats(dim);
  const auto fill = [&](std::size_t rows) {
    std::vector<char> cache(rows * bytes);
    for (std::size_t i = 0; i < rows; ++i)
      StoreCacheRow(type, row.data(), latent, rope, cache.data() + i * bytes);
    return cache;
  };
  for (int m : {1, 8, 32}) {
    double t[2];
    for (bool shared : {false, true}) {
      const std::vector<char> common = fill(std::size_t(prefix) * (shared ? 1 : m)),
                              tails = fill(std::size_t(tail) * m);
      std::vector<std::vector<const void*>> keys(m);
      std::vector<AttentionRow> rows;
      for (int r = 0; r < m; ++r) {
        for (int j = 0; j < prefix; ++j)
          keys[r].push_back(common.data() + (std::size_t(shared ? 0 : r) * prefix + j) * bytes);
        for (int j = 0; j < tail; ++j)
          keys[r].push_back(tails.data() + (std::size_t(r) * tail + j) * bytes);
        rows.push_back({keys[r].data(), prefix + tail});
      }
      const std::vector<float> q = Floats(std::size_t(m) * heads * dim);
      std::vector<float> o(std::size_t(m) * heads * latent);
      t[shared] = Seconds([&] {
        MlaAttention(q.data(), rows.data(), m, heads, latent, rope, 0.1f, type, 0, o.data(), pool);
      });
    }
    const double flop = 2.0 * m * heads * (prefix + tail) * (2 * latent + rope);
    std::printf(
        "shared  %-4s %2d rows x 1024 + 32 keys %9.1f us a row  %6.1f GFLOP/s, unshared %6.1f\n",
        name, m, t[1] / m * 1e6, flop / t[1] * 1e-9, flop / t[0] * 1e-9);
  }
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
  std::printf("# %s, %s, %d threads, FMA rate %.0f GFLOP/s\n", CpuDescription().c_str(),
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
  BenchShared(CacheType::kF32, "fp32", pool);
  BenchShared(CacheType::kBf16, "bf16", pool);
  BenchShared(CacheType::kFp8, "fp8", pool);
  BenchRows(pool);
  std::printf("# FMA rate after: %.0f GFLOP/s\n", FmaRate(pool));
}

}  // namespace
}  // namespace temper::kernels

/// kernels_bench [THREADS] [types]; TEMPER_ISA chooses the variant. `types` measures the linear
/// layers by type of weights instead of everything in fp32.
int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  if (argc > 2 && std::string(argv[2]) == "types") {
    temper::kernels::ThreadPool pool(threads);
    std::printf("# %s, %s, %d threads\n", temper::kernels::CpuDescription().c_str(),
                temper::kernels::IsaName(temper::kernels::ActiveIsa()).c_str(), threads);
    temper::bench::BenchTypes(pool);
    return 0;
  }
  temper::kernels::Run(threads);
  return 0;
}
