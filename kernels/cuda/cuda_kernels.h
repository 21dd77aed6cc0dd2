#pragma once
// The kernels on a CUDA device: launchers that mirror the contracts of kernels/*.h.
//
// Every pointer is device memory; everything is ordered by `stream` and returns at once; nothing is
// allocated, nothing waits, so each call may be captured into a graph. Shapes that mean nothing
// throw std::logic_error, a refused launch CudaError.
//
// Two numerics ids. canon-1: the operations of the CPU in their order, hence its bits (whatever is
// not marked otherwise here). cuda-1: tensor cores (Fp8Gemm, MlaAttentionTensor); the order of a
// tensor core's sum is the hardware's, errors are bounded where the kernel is declared. In both a
// row's bits depend on nothing but the row: no atomics in sums, splits by position alone.
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "kernels/cache_row.h"
#include "kernels/fp8.h"
#include "kernels/linear.h"
#include "kernels/router.h"

namespace temper::kernels::cuda {

struct CudaError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Where a kernel may put E4M3 codes beside or instead of its floats; null members are left out.
///   codes [m][k] contiguous    scales [m][ceil(k/128)] as QuantizeActivations gives them
struct QuantizedOut {
  std::uint8_t* codes = nullptr;
  float* scales = nullptr;
  ScaleRecipe recipe = ScaleRecipe::kPow2;
};

/// RmsNorm() of x, or of x + residual, which then goes to `sum` (may be x or residual).
/// y [m, d] row stride ldy may be null where only codes are wanted. One row stride ldx for x,
/// residual and sum.
struct RmsNormArgs {
  const float* x;
  const float* residual = nullptr;
  float* sum = nullptr;
  std::int64_t ldx;
  const float* weight;
  float eps;
  int m, d;
  float* y = nullptr;
  std::int64_t ldy = 0;
  QuantizedOut out = {};
};
void RmsNorm(const RmsNormArgs& args, cudaStream_t stream);

/// Rope(): x [m][heads][dim] in place.
void Rope(float* x, std::int64_t ldx, int heads, std::int64_t ldh, int dim,
          const std::int32_t* position, int m, const float* table, cudaStream_t stream);

/// SwiGlu(): y may be null where only codes are wanted.
void SwiGlu(const float* gate_up, std::int64_t ld, int m, int d, float* y, std::int64_t ldy,
            QuantizedOut out, cudaStream_t stream);

/// QuantizeActivations(), as codes.
void Quantize(const float* x, std::int64_t ldx, int m, int k, QuantizedOut out,
              cudaStream_t stream);

/// Route(). forced may be null. ids and weight [m, top_k]. Forced ids are the caller's to check:
/// one out of range gives a weight of NaN.
void Route(const float* logits, std::int64_t ld, const float* bias, const RouterShape& shape, int m,
           const std::int32_t* forced, std::int32_t* ids, float* weight, cudaStream_t stream);

/// Tokens sorted by expert, those of one expert in the order of the tokens.
///   ids     [m, k]
///   offset  [experts + 1]  where each expert's rows begin; offset[experts] = m k
///   slot    [m, k]  row of (token, j) among the sorted ones: CombineExperts' slot
///   source  [m k]   token of each sorted row
void SortByExpert(const std::int32_t* ids, int m, int k, int experts, std::int32_t* offset,
                  std::int32_t* slot, std::int32_t* source, cudaStream_t stream);

/// to[i] = from[source[i]], rows of `bytes` bytes, contiguous, a multiple of 4.
void GatherRows(const void* from, const std::int32_t* source, int rows, std::int64_t bytes,
                void* to, cudaStream_t stream);

/// CombineExperts(): what SortByExpert took apart.
void CombineExperts(const float* expert_out, std::int64_t lde, const std::int32_t* slot,
                    const float* weight, int k, const float* shared, std::int64_t lds,
                    const float* residual, std::int64_t ldr, int m, int d, float* y,
                    std::int64_t ldy, cudaStream_t stream);

/// LogSumExp(), TokenLogProbs() and Entropy() in one reading or two; null outputs are left out.
///   temperature [m] > 0    target [m] in [0, v)    scratch [LogSoftmaxScratch(m, v)] floats
struct LogSoftmaxArgs {
  const float* logits;
  std::int64_t ld;
  int m, v;
  const float* temperature;
  float* lse;  // [m], never null
  const std::int32_t* target = nullptr;
  float* logp = nullptr;  // [m]
  float* entropy = nullptr;
  float* scratch;
};
std::int64_t LogSoftmaxScratch(int m, int v);
void LogSoftmax(const LogSoftmaxArgs& args, cudaStream_t stream);

/// One draw of SampleToken(): its place in the stream, its parameters, its row of logits and lse
/// (-1: the draw's own number).
struct SampleRow {
  std::uint64_t seed, group;
  std::uint32_t sample, position;
  float temperature = 1;
  std::int32_t top_k = 0;
  float top_p = 1, min_p = 0;
  std::int32_t row = -1;
};
struct SampledRow {
  std::int32_t id;
  float logp, logp_processed, log_kept_mass;
};
/// SampleToken() of each row, parameters in range. lse: LogSoftmax of the logits' rows at
/// their temperature (at 1 where it is 0).
void Sample(const float* logits, std::int64_t ld, int m, int v, int valid, const float* lse,
            const SampleRow* rows, SampledRow* out, cudaStream_t stream);

/// Linear layers of one shape side by side, each as if alone: the heads of MLA, the experts of a
/// MoE layer. Layer g has its weights `w_step` bytes and `scale_step` floats behind those of layer
/// g - 1, and
///   offset null: all m rows, at x + g x_step and y + g y_step (elements);
///   else, on the device: the rows [offset[g], offset[g + 1]) of x and y; m = offset[count].
struct Groups {
  int count = 1;
  std::int64_t w_step = 0, scale_step = 0, x_step = 0, y_step = 0;
  const std::int32_t* offset = nullptr;  // [count + 1], as SortByExpert gives it
};

/// Linear() over the CPU's packed panels: canon-1. Exactly one of x and codes:
///   x      [m, K] floats, row stride ldx
///   codes  [m][K] E4M3, contiguous, with x_scale [m][ceil(K/128)] (W8A8, FP8 weights only)
struct LinearArgs {
  LinearWeight w;
  const float* x = nullptr;
  std::int64_t ldx = 0;
  const std::uint8_t* codes = nullptr;
  const float* x_scale = nullptr;
  int m;
  float* y;
  std::int64_t ldy;
  Groups groups = {};  // codes: with offsets or one layer only
};
void Linear(const LinearArgs& args, cudaStream_t stream);

/// Rows of inputs as TensorLinear() takes them, BF16, ld elements apart, zeros from k up to ld =
/// TensorWidth(k).
struct TensorRows {
  std::uint16_t* high;           // [m][ld]
  std::uint16_t* low = nullptr;  // [m][ld], x = high + low up to 2^-17 |x|; null: high is exact
  float* scale = nullptr;        // W8A8: [m][ceil(k/128)]
};
std::int64_t TensorWidth(int k);  // k rounded up to 16
/// x as two BF16 numbers, or where out.scale is given as QuantizeActivations' values (exact).
void TensorInputs(const float* x, std::int64_t ldx, int m, int k, ScaleRecipe recipe,
                  const TensorRows& out, cudaStream_t stream);

/// Linear() on tensor cores: cuda-1. BF16 or FP8 weights in the CPU's packed panels.
/// Order  a block of 128 inputs: the tensor core's sum over steps of 16 inputs, high before low;
///        times the block's scale (FP8; W8A8: fl(x_scale w_scale)), added by fma, blocks ascending
///        in eight parts of K, parts ascending.
/// |y - exact| <= 2^-11 sum |w x|: tensor cores may cut a sum to 13 bits.
/// Cost   weights once for up to 32 rows.
struct TensorLinearArgs {
  LinearWeight w;
  TensorRows x;
  std::int64_t ldx;
  int m;
  float* y;
  std::int64_t ldy;
  Groups groups = {};  // x_step in elements of high; scales: with offsets or one layer only
};
void TensorLinear(const TensorLinearArgs& args, cudaStream_t stream);

/// What lies between a model's layers. Embed: row ids[r] of a table [vocabulary][h] of FP32 or
/// BF16.
void Embed(const void* table, WeightType type, const std::int32_t* ids, int m, int h, float* x,
           cudaStream_t stream);
/// y[r, i] += bias[i].
void AddBias(const float* bias, int m, int n, float* y, cudaStream_t stream);
/// x[i] += block[i], rounded to BF16 first where `rounds`.
void AddBlock(const float* block, std::int64_t count, bool rounds, float* x, cudaStream_t stream);
/// to[r, 0 .. width) = from[r, 0 .. width).
void CopyColumns(const float* from, std::int64_t ld_from, int rows, int width, float* to,
                 std::int64_t ld_to, cudaStream_t stream);
/// to[index[i]] = value[i]; no index twice.
void Scatter(const std::int64_t* index, const std::int32_t* value, int count, std::int32_t* to,
             cudaStream_t stream);

/// W8A8 on tensor cores for few rows: cuda-1. Weights as a checkpoint holds them.
///   w  [n][k] codes, k a multiple of 64, 16-byte aligned   w_scale [ceil(n/128)][ceil(k/128)]
///   x  [m][k] codes, 16-byte aligned                       x_scale [m][ceil(k/128)]
///   y  [m, n] row stride ldy
/// Order  a block of 128 inputs: the tensor core's sum; times fl(x_scale w_scale), added by fma,
///        blocks ascending in eight parts of K, parts ascending.
/// |y - exact| <= 2^-11 sum |w x| (scales included): tensor cores may cut a sum to 13 bits.
/// Cost   weights once for up to 64 rows.
void Fp8Gemm(const std::uint8_t* w, const float* w_scale, const std::uint8_t* x,
             const float* x_scale, int m, int n, int k, float* y, std::int64_t ldy,
             cudaStream_t stream);

/// The same for many rows, and for the experts of a MoE layer at once: CUTLASS on Hopper's wgmma
/// and TMA (cuda-1; in cutlass_fp8_gemm.cu, which only nvcc compiles, for sm_90a).
///   w  [groups][n][k], w_scale [groups][ceil(n/128)][ceil(k/128)]: the experts' weights
///   offset [groups + 1], on the device: group g has rows [offset[g], offset[g + 1]), as
///   SortByExpert gives them; null: one group of all rows
///   x [rows][k], x_scale [rows][ceil(k/128)], y [rows][n]
/// n a multiple of 128, k of 128; w, x and y 16-byte aligned.
/// workspace [GroupedGemmWorkspace()] bytes, 256-byte aligned. multiprocessors: of the device.
struct GroupedGemmArgs {
  const std::uint8_t* w;
  const float* w_scale;
  const std::uint8_t* x;
  const float* x_scale;
  const std::int32_t* offset;
  int groups, rows, n, k;
  float* y;
  void* workspace;
  int multiprocessors;
};
std::size_t GroupedGemmWorkspace(int groups, int multiprocessors);
void Fp8GroupedGemm(const GroupedGemmArgs& args, cudaStream_t stream);

/// The paged latent cache: token t of a sequence lies at
/// pool + (page[t / page_tokens] * page_tokens + t % page_tokens) * token_bytes + offset.
struct CacheView {
  unsigned char* pool;       // 16-byte aligned
  std::int64_t token_bytes;  // of all layers, a multiple of 16
  std::int64_t offset;       // of the layer in it, a multiple of 16
  int page_tokens;
  CacheType type;
  int latent, rope;
};

/// StoreCacheRow(): row r [latent + rope] at x + r * ldx becomes token place[r] of the pool
/// (page * page_tokens + position in it).
void StoreCache(const CacheView& cache, const float* x, std::int64_t ldx, int m,
                const std::int64_t* place, cudaStream_t stream);

/// MlaAttention() over pages; decode (a row a sequence) and prefill (a row a token) alike.
///   q      [m][heads][latent + rope]     o [m][heads][latent]
///   pages  [m][ld_pages]: row r's page numbers     count [m]: visible keys, >= 1
struct AttentionArgs {
  CacheView cache;
  const float* q;
  const std::int32_t* pages;
  std::int64_t ld_pages;
  const std::int32_t* count;
  int m, heads;
  float scale;
  float* o;
  const std::int32_t* table = nullptr;  // [m]: which row of `pages` is row r's; null: its own
};
void MlaAttention(const AttentionArgs& args, cudaStream_t stream);  // canon-1

/// The same on tensor cores: cuda-1, for 512 + 64 in BF16 or FP8. q and the softmax's numerators
/// are rounded to BF16; tiles of 32 keys ascending in splits of 256 keys from position 0, splits
/// merged ascending. |o - exact| <= 2^-6 max |key| for |scale q key| <= 16.
/// scratch [AttentionScratch(m, heads, splits)] floats; splits = ceil(longest count / 256) or more:
/// never changes a bit. splits = 0: no scratch, a block takes its row's splits in turn (prefill);
/// the same bits.
std::int64_t AttentionScratch(int m, int heads, int splits);
void MlaAttentionTensor(const AttentionArgs& args, int splits, float* scratch, cudaStream_t stream);

}  // namespace temper::kernels::cuda
