// The linear layers by type of weights: one row beside the read rate, eight rows beside one, many
// rows beside the multiply-add rate, all of the same round.
#include "bench/linear_bench.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "bench/rates.h"
#include "kernels/linear.h"

namespace temper::bench {
namespace {

using kernels::LinearItem;
using kernels::WeightType;

constexpr int kRounds = 7;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kBytes = std::size_t{384} << 20;  // more than caches hold

const char* Name(WeightType type) {
  return type == WeightType::kF32 ? "fp32" : type == WeightType::kBf16 ? "bf16" : "fp8";
}

/// As many [n, k] matrices of one type as kBytes hold, all in one region of memory.
class Layers {
 public:
  Layers(WeightType type, int n, int k, int count)
      : type_(type),
        n_(n),
        k_(k),
        count_(count),
        each_(kernels::PackedBytes(type, n, k)),
        scale_(static_cast<std::size_t>((n + 127) / 128 * ((k + 127) / 128)), 1.0f) {
    const std::size_t bytes = each_ * static_cast<std::size_t>(count);
    data_ = static_cast<char*>(
        std::aligned_alloc(kHugePage, (bytes + kHugePage - 1) / kHugePage * kHugePage));
    madvise(data_, bytes, MADV_HUGEPAGE);  // as the engine's weights lie
    // Small finite numbers in every type: codes 0x30 .. 0x3f (BF16 and floats near 1e-9 .. 1).
    unsigned state = 7;
    for (std::size_t i = 0; i < each_ * static_cast<std::size_t>(count); ++i) {
      state = state * 1664525u + 1013904223u;
      data_[i] = static_cast<char>(0x30 + (state >> 28));
    }
  }
  ~Layers() { std::free(data_); }
  Layers(const Layers&) = delete;
  Layers& operator=(const Layers&) = delete;

  double Bytes() const { return static_cast<double>(each_) * count_; }
  int count() const { return count_; }

  /// y = W x for m rows through every matrix, in one region.
  double Time(int m, kernels::ThreadPool& pool) const {
    const std::vector<float> x = Floats(static_cast<std::size_t>(m) * k_);
    std::vector<float> y(static_cast<std::size_t>(m) * n_ * count_);
    std::vector<LinearItem> items;
    for (int i = 0; i < count_; ++i) {
      const auto at = static_cast<std::size_t>(i);
      items.push_back(
          {{data_ + at * each_, n_, k_, type_, type_ == WeightType::kFp8 ? scale_.data() : nullptr},
           x.data(),
           k_,
           m,
           y.data() + at * static_cast<std::size_t>(m) * n_,
           n_});
    }
    return Once([&] { kernels::LinearMany(items.data(), count_, pool); }, pool.threads());
  }

 private:
  WeightType type_;
  int n_, k_, count_;
  std::size_t each_;
  std::vector<float> scale_;
  char* data_;
};

void FewRows(WeightType type, int n, int k, kernels::ThreadPool& pool) {
  const int count = std::max(1, static_cast<int>(kBytes / kernels::PackedBytes(type, n, k)));
  const Layers layers(type, n, k, count);
  layers.Time(1, pool);
  const int rows[] = {1, 2, 4, 8, 16};
  std::vector<double> share[5], speedup[5];
  std::vector<double> read;
  for (int round = 0; round < kRounds; ++round) {
    double one = 0;
    for (int i = 0; i < 5; ++i) {
      const double before = ReadRate(pool), t = layers.Time(rows[i], pool);
      const double rate = (before + ReadRate(pool)) / 2;
      if (i == 0) one = t;
      read.push_back(rate);
      share[i].push_back(layers.Bytes() / t * 1e-9 / rate);
      speedup[i].push_back(rows[i] * one / t);
    }
  }
  std::printf("rows  %4s %5d x %5d  read %5.1f GB/s  1 row %3.0f %%", Name(type), n, k,
              Median(read), 100 * Median(share[0]));
  for (int i = 1; i < 5; ++i) {
    std::printf("  %d rows %3.0f %% (%4.1fx)", rows[i], 100 * Median(share[i]), Median(speedup[i]));
  }
  std::printf("\n");
  std::fflush(stdout);
}

void ManyRows(WeightType type, int m, int n, int k, kernels::ThreadPool& pool) {
  const Layers layers(type, n, k, 4);
  layers.Time(m, pool);
  std::vector<double> rate, share;
  for (int round = 0; round < kRounds; ++round) {
    const double before = FmaRate(pool), t = layers.Time(m, pool), after = FmaRate(pool);
    rate.push_back(2e-9 * m * n * k * layers.count() / t);
    share.push_back(rate.back() / ((before + after) / 2));
  }
  std::printf("tiles %4s m %4d %5d x %5d  %6.1f GFLOP/s, %3.0f %% of the FMA rate\n", Name(type), m,
              n, k, Median(rate), 100 * Median(share));
  std::fflush(stdout);
}

}  // namespace

void BenchTypes(kernels::ThreadPool& pool) {
  for (WeightType type : {WeightType::kFp8, WeightType::kBf16, WeightType::kF32}) {
    FewRows(type, 4096, 7168, pool);
    FewRows(type, 1408, 2048, pool);
    FewRows(type, 512, 1024, pool);
  }
  for (WeightType type : {WeightType::kFp8, WeightType::kBf16, WeightType::kF32}) {
    for (int m : {32, 64, 512}) {
      ManyRows(type, m, 1408, 2048, pool);
      ManyRows(type, m, 2048, 2048, pool);
    }
  }
}

}  // namespace temper::bench
