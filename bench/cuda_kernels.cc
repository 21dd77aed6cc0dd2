#include "bench/cuda_kernels.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "engine/cuda/memory.h"
#include "kernels/cuda/cuda_kernels.h"

namespace temper::bench {

namespace {

namespace kc = kernels::cuda;
using engine::cuda::Device;
using kernels::CacheType;
using kernels::WeightType;

std::string Text(std::initializer_list<int> sizes) {
  std::string text;
  for (int s : sizes) text += (text.empty() ? "" : " x ") + std::to_string(s);
  return text;
}

int Blocks(int k) { return (k + kernels::kBlock - 1) / kernels::kBlock; }

class Bench {
 public:
  Bench(int number, const CudaSizes& sizes) : device_(number), s_(sizes) {
    device_.Check(cudaEventCreate(&begin_), "making an event");
    device_.Check(cudaEventCreate(&end_), "making an event");
    cudaDeviceProp properties{};
    device_.Check(cudaGetDeviceProperties(&properties, number), "asking the device");
    result_["device"] = properties.name;
    result_["gemm_tflop_s"] = 0.0;
    result_["kernels"] = Json::array();
  }
  ~Bench() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }

  Json Run() {
    Copy();
    Gemm();
    Rows();
    Experts();
    Vocabulary();
    Linears();
    Attention();
    return result_;
  }

 private:
  /// Memory whose every float, BF16 number and code is small and finite.
  template <typename T>
  T* Take(std::int64_t count) {
    const std::size_t bytes = std::size_t(count) * sizeof(T);
    memory_.push_back(device_.Allocate(bytes, "a benchmark's buffer"));
    device_.Check(cudaMemsetAsync(memory_.back().get(), 0x3c, bytes, stream()), "filling a buffer");
    return reinterpret_cast<T*>(memory_.back().get());
  }
  template <typename T>
  T* Take(const std::vector<T>& values) {
    T* to = Take<T>(std::int64_t(values.size()));
    device_.Copy(to, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice);
    device_.Wait();
    return to;
  }
  cudaStream_t stream() const { return device_.stream(); }

  /// Median microseconds of a call.
  double Time(const std::function<void()>& call) {
    call();  // the first one loads code
    std::vector<float> times;
    for (int i = 0; i < s_.repeats; ++i) {
      device_.Check(cudaEventRecord(begin_, stream()), "marking");
      call();
      device_.Check(cudaEventRecord(end_, stream()), "marking");
      device_.Wait();
      float ms = 0;
      device_.Check(cudaEventElapsedTime(&ms, begin_, end_), "reading the time");
      times.push_back(ms);
    }
    std::nth_element(times.begin(), times.begin() + std::ptrdiff_t(times.size() / 2), times.end());
    return 1e3 * double(times[times.size() / 2]);
  }

  void Measure(const std::string& kernel, const std::string& shape, double bytes, double flop,
               const std::function<void()>& call) {
    const double us = Time(call), gb_s = bytes / us / 1e3, tflop_s = flop / us / 1e6;
    const double gemm = result_["gemm_tflop_s"].get<double>();
    result_["kernels"].push_back({{"kernel", kernel},
                                  {"shape", shape},
                                  {"us", us},
                                  {"gb_s", gb_s},
                                  {"tflop_s", tflop_s},
                                  {"copy_share", gb_s / result_["copy_gb_s"].get<double>()},
                                  {"gemm_share", gemm > 0 ? tflop_s / gemm : 0.0}});
  }

  void Copy() {
    auto* from = Take<unsigned char>(std::int64_t(s_.copy_bytes));
    auto* to = Take<unsigned char>(std::int64_t(s_.copy_bytes));
    const double us =
        Time([&] { device_.Copy(to, from, s_.copy_bytes, cudaMemcpyDeviceToDevice); });
    result_["copy_gb_s"] = 2.0 * double(s_.copy_bytes) / us / 1e3;
    memory_.clear();
  }

  /// FP8's own rate by CUTLASS: only nvcc compiles it.
  void Gemm() {
#ifndef TEMPER_SIMT
    const int m = s_.prefill, n = s_.outputs, k = s_.hidden;
    kc::GroupedGemmArgs a{};
    a.w = Take<std::uint8_t>(std::int64_t{n} * k);
    a.w_scale = Take<float>(std::int64_t{Blocks(n)} * Blocks(k));
    a.x = Take<std::uint8_t>(std::int64_t{m} * k);
    a.x_scale = Take<float>(std::int64_t{m} * Blocks(k));
    a.groups = 1;
    a.rows = m;
    a.n = n;
    a.k = k;
    a.y = Take<float>(std::int64_t{m} * n);
    a.multiprocessors = device_.multiprocessors();
    a.workspace = Take<unsigned char>(std::int64_t(kc::GroupedGemmWorkspace(1, a.multiprocessors)));
    const double flop = 2.0 * m * n * k;
    result_["gemm_tflop_s"] = flop / Time([&] { kc::Fp8GroupedGemm(a, stream()); }) / 1e6;
    Measure("Fp8GroupedGemm", Text({m, n, k}), double(n) * k + double(m) * k + 4.0 * m * n, flop,
            [&] { kc::Fp8GroupedGemm(a, stream()); });
    memory_.clear();
#endif
  }

  void Rows() {
    const int m = s_.rows, d = s_.hidden;
    kc::RmsNormArgs a{};
    a.x = Take<float>(std::int64_t{m} * d);
    a.ldx = a.ldy = a.d = d;
    a.weight = Take<float>(d);
    a.eps = 1e-6f;
    a.m = m;
    a.y = Take<float>(std::int64_t{m} * d);
    Measure("RmsNorm", Text({m, d}), 8.0 * m * d, 4.0 * m * d, [&] { kc::RmsNorm(a, stream()); });
    const kc::QuantizedOut codes{Take<std::uint8_t>(std::int64_t{m} * d),
                                 Take<float>(std::int64_t{m} * Blocks(d))};
    Measure("Quantize", Text({m, d}), 5.0 * m * d, 10.0 * m * d,
            [&] { kc::Quantize(a.x, d, m, d, codes, stream()); });
    const std::int64_t ld = kc::TensorWidth(d);
    const kc::TensorRows halves{Take<std::uint16_t>(m * ld), Take<std::uint16_t>(m * ld)};
    Measure("TensorInputs", Text({m, d}), 8.0 * m * d, 4.0 * m * d,
            [&] { kc::TensorInputs(a.x, d, m, d, kernels::ScaleRecipe::kPow2, halves, stream()); });
    float* x = Take<float>(std::int64_t{m} * s_.heads * 64);
    auto* position = Take(std::vector<std::int32_t>(std::size_t(m), 1));
    const float* table = Take<float>(2 * 64);
    Measure("Rope", Text({m, s_.heads, 64}), 8.0 * m * s_.heads * 64, 3.0 * m * s_.heads * 64,
            [&] { kc::Rope(x, s_.heads * 64, s_.heads, 64, 64, position, m, table, stream()); });
    const int pairs = m * s_.top_k, w = s_.width;
    const float* gate_up = Take<float>(std::int64_t{pairs} * 2 * w);
    float* gated = Take<float>(std::int64_t{pairs} * w);
    Measure("SwiGlu", Text({pairs, w}), 12.0 * pairs * w, 25.0 * pairs * w,
            [&] { kc::SwiGlu(gate_up, 2 * w, pairs, w, gated, w, {}, stream()); });
    memory_.clear();
  }

  void Experts() {
    const int m = s_.rows, d = s_.hidden, e = s_.experts, k = s_.top_k, pairs = m * k;
    kernels::RouterShape shape{e, k, 8, 4, true, 2.5f};
    const float *logits = Take<float>(std::int64_t{m} * e), *bias = Take<float>(e);
    auto* ids = Take<std::int32_t>(pairs);
    float* weight = Take<float>(pairs);
    Measure("Route", Text({m, e}), 4.0 * m * e, 46.0 * m * e,
            [&] { kc::Route(logits, e, bias, shape, m, nullptr, ids, weight, stream()); });
    auto *offset = Take<std::int32_t>(e + 1), *slot = Take<std::int32_t>(pairs),
         *source = Take<std::int32_t>(pairs);
    Measure("SortByExpert", Text({pairs, e}), 16.0 * pairs, 0,
            [&] { kc::SortByExpert(ids, m, k, e, offset, slot, source, stream()); });
    const float* x = Take<float>(std::int64_t{m} * d);
    float* gathered = Take<float>(std::int64_t{pairs} * d);
    Measure("GatherRows", Text({pairs, d}), 8.0 * pairs * d, 0,
            [&] { kc::GatherRows(x, source, pairs, 4 * d, gathered, stream()); });
    float* y = Take<float>(std::int64_t{m} * d);
    Measure("CombineExperts", Text({m, k, d}), 4.0 * m * d * (k + 2), 2.0 * m * k * d, [&] {
      kc::CombineExperts(gathered, d, slot, weight, k, x, d, nullptr, 0, m, d, y, d, stream());
    });
    // All experts' first layer: every expert has a row or more where rows * top_k >= experts.
    std::vector<std::int32_t> even;
    for (int i = 0; i <= e; ++i) even.push_back(int(std::int64_t{pairs} * i / e));
    const int n = 2 * s_.width;
    Tensor("TensorLinear experts FP8", WeightType::kFp8, false, pairs, n, d, e, Take(even));
    memory_.clear();
  }

  void Vocabulary() {
    const int m = s_.rows, v = s_.vocabulary;
    kc::LogSoftmaxArgs a{};
    a.logits = Take<float>(std::int64_t{m} * v);
    a.ld = a.v = v;
    a.m = m;
    a.temperature = Take(std::vector<float>(std::size_t(m), 1.0f));
    a.lse = Take<float>(m);
    a.scratch = Take<float>(kc::LogSoftmaxScratch(m, v));
    Measure("LogSoftmax", Text({m, v}), 4.0 * m * v, 25.0 * m * v,
            [&] { kc::LogSoftmax(a, stream()); });
    a.entropy = Take<float>(m);
    Measure("LogSoftmax + entropy", Text({m, v}), 8.0 * m * v, 50.0 * m * v,
            [&] { kc::LogSoftmax(a, stream()); });
    std::vector<kc::SampleRow> draws(std::size_t(m), {1, 2, 3, 4});
    const kc::SampleRow* rows = Take(draws);
    auto* out = Take<kc::SampledRow>(m);
    Measure("Sample", Text({m, v}), 8.0 * m * v, 60.0 * m * v,
            [&] { kc::Sample(a.logits, v, m, v, v, a.lse, rows, out, stream()); });
    memory_.clear();
  }

  void Tensor(const std::string& name, WeightType type, bool quantised, int m, int n, int k,
              int groups, const std::int32_t* offset) {
    const std::int64_t ld = kc::TensorWidth(k);
    const std::int64_t each = std::int64_t(kernels::PackedBytes(type, n, k));
    const std::int64_t scales = std::int64_t{Blocks(n)} * Blocks(k);
    kc::TensorLinearArgs a{};
    a.w = {Take<unsigned char>(each * groups), n, k, type,
           type == WeightType::kFp8 ? Take<float>(scales * groups) : nullptr};
    a.x.high = Take<std::uint16_t>(m * ld);
    if (quantised) a.x.scale = Take<float>(std::int64_t{m} * Blocks(k));
    if (!quantised) a.x.low = Take<std::uint16_t>(m * ld);
    a.ldx = ld;
    a.m = m;
    a.y = Take<float>(std::int64_t{m} * n);
    a.ldy = n;
    a.groups = {groups, each, scales, 0, 0, offset};
    const double used = std::min(groups, m);  // experts that have a row
    Measure(name, Text({m, n, k}), double(each) * used + 4.0 * m * (n + k), 2.0 * m * n * k,
            [&] { kc::TensorLinear(a, stream()); });
  }

  void Linears() {
    const int n = s_.outputs, k = s_.hidden;
    for (int m : {1, 8, s_.rows, 8 * s_.rows}) {
      Tensor("TensorLinear BF16", WeightType::kBf16, false, m, n, k, 1, nullptr);
      Tensor("TensorLinear FP8", WeightType::kFp8, false, m, n, k, 1, nullptr);
      Tensor("TensorLinear W8A8", WeightType::kFp8, true, m, n, k, 1, nullptr);
      const auto *w = Take<std::uint8_t>(std::int64_t{n} * k),
                 *x = Take<std::uint8_t>(std::int64_t{m} * k);
      const float *w_scale = Take<float>(std::int64_t{Blocks(n)} * Blocks(k)),
                  *x_scale = Take<float>(std::int64_t{m} * Blocks(k));
      float* y = Take<float>(std::int64_t{m} * n);
      Measure("Fp8Gemm", Text({m, n, k}), double(n) * k + double(m) * k + 4.0 * m * n,
              2.0 * m * n * k,
              [&] { kc::Fp8Gemm(w, w_scale, x, x_scale, m, n, k, y, n, stream()); });
      kc::LinearArgs a{};
      a.w = {w, n, k, WeightType::kFp8, w_scale};
      a.x = Take<float>(std::int64_t{m} * k);
      a.ldx = k;
      a.m = m;
      a.y = y;
      a.ldy = n;
      Measure("Linear FP8 (canon-1)", Text({m, n, k}), double(n) * k + 4.0 * m * (n + k),
              2.0 * m * n * k, [&] { kc::Linear(a, stream()); });
      memory_.clear();
    }
  }

  void Attention() {
    for (CacheType type : {CacheType::kBf16, CacheType::kFp8}) {
      const std::string name = type == CacheType::kBf16 ? "BF16" : "FP8";
      const int bytes = int(kernels::CacheRowBytes(type, 512, 64));
      Attend("MlaAttentionTensor decode " + name, type, bytes, s_.rows, false, true);
      Attend("MlaAttentionTensor prefill " + name, type, bytes, s_.keys, true, true);
    }
    Attend("MlaAttention (canon-1)", CacheType::kBf16, 1152, 2, false, false);
  }

  /// `rows` sequences of s_.keys keys each, or one sequence whose every token is a row.
  void Attend(const std::string& name, CacheType type, int bytes, int rows, bool prefill,
              bool tensor) {
    const int keys = s_.keys, heads = s_.heads, sequences = prefill ? 1 : rows;
    std::vector<std::int32_t> pages, count, table;
    for (int i = 0; i < sequences * keys; ++i) pages.push_back(i);
    for (int r = 0; r < rows; ++r) {
      count.push_back(prefill ? r + 1 : keys);
      table.push_back(prefill ? 0 : r);
    }
    kc::AttentionArgs a{};
    a.cache = {
        Take<unsigned char>(std::int64_t{sequences} * keys * bytes), bytes, 0, 1, type, 512, 64};
    a.q = Take<float>(std::int64_t{rows} * heads * 576);
    a.pages = Take(pages);
    a.ld_pages = keys;
    a.count = Take(count);
    a.table = Take(table);
    a.m = rows;
    a.heads = heads;
    a.scale = 0.1f;
    a.o = Take<float>(std::int64_t{rows} * heads * 512);
    const int splits = prefill || !tensor ? 0 : (keys + 255) / 256;
    float* scratch =
        Take<float>(std::max<std::int64_t>(1, kc::AttentionScratch(rows, heads, splits)));
    const double seen = prefill ? 0.5 * rows * (rows + 1.0) : double(rows) * keys;
    const double moved = double(sequences) * keys * bytes + 4.0 * rows * heads * (576 + 512);
    Measure(name, Text({rows, heads, keys}), moved, 2.0 * seen * heads * (576 + 512), [&] {
      tensor ? kc::MlaAttentionTensor(a, splits, scratch, stream()) : kc::MlaAttention(a, stream());
    });
    memory_.clear();
  }

  Device device_;
  const CudaSizes s_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  std::vector<std::shared_ptr<std::byte>> memory_;
  Json result_;
};

}  // namespace

CudaSizes TinySizes() {
  CudaSizes s;
  s.rows = 4;
  s.hidden = 128;
  s.heads = 4;
  s.keys = 40;
  s.experts = 8;
  s.top_k = 2;
  s.width = 32;
  s.outputs = 128;
  s.vocabulary = 300;
  s.prefill = 128;
  s.copy_bytes = 1 << 16;
  s.repeats = 1;
  return s;
}

Json BenchCudaKernels(int device, const CudaSizes& sizes) { return Bench(device, sizes).Run(); }

}  // namespace temper::bench
