// What lies between a model's layers: embedding, bias, residual stream, columns, the table of keys.
#include "kernels/cuda/formats.h"
#include "kernels/cuda/launch.h"

namespace temper::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ std::int64_t Task() {
  return std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
}

__global__ void __launch_bounds__(kThreads)
    EmbedKernel(const void* table, WeightType type, const std::int32_t* ids, std::int64_t count,
                int h, float* x) {
  const std::int64_t i = Task();
  if (i >= count) return;
  const std::int64_t at = std::int64_t{ids[i / h]} * h + i % h;
  x[i] = type == WeightType::kF32 ? static_cast<const float*>(table)[at]
                                  : FromBf16(static_cast<const std::uint16_t*>(table)[at]);
}

__global__ void __launch_bounds__(kThreads)
    AddBiasKernel(const float* bias, std::int64_t count, int n, float* y) {
  const std::int64_t i = Task();
  if (i < count) y[i] = y[i] + bias[i % n];
}

__global__ void __launch_bounds__(kThreads)
    AddBlockKernel(const float* block, std::int64_t count, bool rounds, float* x) {
  const std::int64_t i = Task();
  if (i >= count) return;
  const float b = block[i];
  x[i] = x[i] + (rounds ? FromBf16(ToBf16(b)) : b);
}

__global__ void __launch_bounds__(kThreads)
    CopyColumnsKernel(const float* from, std::int64_t ld_from, std::int64_t count, int width,
                      float* to, std::int64_t ld_to) {
  const std::int64_t i = Task();
  if (i < count) to[i / width * ld_to + i % width] = from[i / width * ld_from + i % width];
}

__global__ void __launch_bounds__(kThreads)
    ScatterKernel(const std::int64_t* index, const std::int32_t* value, int count,
                  std::int32_t* to) {
  const std::int64_t i = Task();
  if (i < count) to[index[i]] = value[i];
}

}  // namespace

void Embed(const void* table, WeightType type, const std::int32_t* ids, int m, int h, float* x,
           cudaStream_t stream) {
  if (type == WeightType::kFp8) throw std::logic_error("Embed: FP32 or BF16");
  const std::int64_t count = std::int64_t{m} * h;
  Launch("Embed", EmbedKernel, GridFor(count, kThreads, "Embed"), kThreads, 0, stream, table, type,
         ids, count, h, x);
}

void AddBias(const float* bias, int m, int n, float* y, cudaStream_t stream) {
  const std::int64_t count = std::int64_t{m} * n;
  Launch("AddBias", AddBiasKernel, GridFor(count, kThreads, "AddBias"), kThreads, 0, stream, bias,
         count, n, y);
}

void AddBlock(const float* block, std::int64_t count, bool rounds, float* x, cudaStream_t stream) {
  Launch("AddBlock", AddBlockKernel, GridFor(count, kThreads, "AddBlock"), kThreads, 0, stream,
         block, count, rounds, x);
}

void CopyColumns(const float* from, std::int64_t ld_from, int rows, int width, float* to,
                 std::int64_t ld_to, cudaStream_t stream) {
  const std::int64_t count = std::int64_t{rows} * width;
  Launch("CopyColumns", CopyColumnsKernel, GridFor(count, kThreads, "CopyColumns"), kThreads, 0,
         stream, from, ld_from, count, width, to, ld_to);
}

void Scatter(const std::int64_t* index, const std::int32_t* value, int count, std::int32_t* to,
             cudaStream_t stream) {
  Launch("Scatter", ScatterKernel, GridFor(count, kThreads, "Scatter"), kThreads, 0, stream, index,
         value, count, to);
}

}  // namespace temper::kernels::cuda
