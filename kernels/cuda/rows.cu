// Row operations: norm, rotary embedding, gated activation, quantisation, rows of the cache.
#include "kernels/cuda/device_math.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/launch.h"

namespace temper::kernels::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpLanes;

__host__ __device__ inline int BlocksOf(int k) { return (k + kBlock - 1) / kBlock; }

/// A warp writes the codes and the multiplier of block b of row r; lane l holds four entries.
__device__ inline void StoreBlock(const float (&x)[4], const QuantizedOut& out, std::int64_t r,
                                  int b, int k) {
  const int lane = threadIdx.x % kWarpLanes, i = b * kBlock + 4 * lane;
  float scale;
  const unsigned word = QuantizeBlock(x, out.recipe, &scale);
  std::uint8_t* to = out.codes + r * k + i;
  if (k % 4 == 0) {
    if (i < k) *reinterpret_cast<unsigned*>(to) = word;
  } else {
    for (int j = 0; j < 4 && i + j < k; ++j) to[j] = static_cast<std::uint8_t>(word >> (8 * j));
  }
  if (lane == 0) out.scales[r * BlocksOf(k) + b] = scale;
}

// One block a row, which waits in shared memory while sixteen lanes sum it in the written order.
__global__ void __launch_bounds__(kThreads) RmsNormKernel(RmsNormArgs a) {
  float* row = DynamicShared<float>();  // [d]
  __shared__ float shared_scale;
  const std::int64_t r = blockIdx.x;
  const float* x = a.x + r * a.ldx;
  for (int i = threadIdx.x; i < a.d; i += kThreads) {
    float v = x[i];
    if (a.residual != nullptr) v = v + a.residual[r * a.ldx + i];
    if (a.sum != nullptr) a.sum[r * a.ldx + i] = v;
    row[i] = v;
  }
  __syncthreads();
  if (threadIdx.x < kWarpLanes) {
    float sum = 0.0f;
    if (threadIdx.x < 16) {
#pragma unroll 8
      for (int i = threadIdx.x; i < a.d; i += 16) sum = fmaf(row[i], row[i], sum);
    }
#pragma unroll
    for (int half = 8; half >= 1; half /= 2) sum = sum + __shfl_down_sync(kAllLanes, sum, half);
    const float mean = sum / static_cast<float>(a.d);
    if (threadIdx.x == 0) shared_scale = 1.0f / sqrtf(mean + a.eps);
  }
  __syncthreads();
  const float scale = shared_scale;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  for (int b = warp; b < BlocksOf(a.d); b += kWarps) {
    float y[4] = {};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int i = b * kBlock + 4 * lane + j;
      if (i < a.d) y[j] = (row[i] * scale) * a.weight[i];
      if (i < a.d && a.y != nullptr) a.y[r * a.ldy + i] = y[j];
    }
    if (a.out.codes != nullptr) StoreBlock(y, a.out, r, b, a.d);
  }
}

__global__ void __launch_bounds__(kThreads)
    RopeKernel(float* x, std::int64_t ldx, int heads, std::int64_t ldh, int dim,
               const std::int32_t* position, std::int64_t pairs, const float* table) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= pairs) return;
  const int pair = static_cast<int>(i % (dim / 2));
  const std::int64_t head = i / (dim / 2) % heads, r = i / (dim / 2) / heads;
  float* at = x + r * ldx + head * ldh + 2 * pair;
  const float* angle = table + std::int64_t{position[r]} * dim + 2 * pair;
  const float a = at[0], b = at[1], cos = angle[0], sin = angle[1];
  at[0] = fmaf(a, cos, -(b * sin));
  at[1] = fmaf(b, cos, a * sin);
}

/// Entry i of a row before it is stored.
struct GatedEntry {
  const float* gate_up;
  std::int64_t ld;
  int d;
  __device__ float operator()(std::int64_t r, int i) const {
    const float gate = gate_up[r * ld + i];
    return (gate * Sigmoid(gate)) * gate_up[r * ld + d + i];
  }
};
struct PlainEntry {
  const float* x;
  std::int64_t ld;
  __device__ float operator()(std::int64_t r, int i) const { return x[r * ld + i]; }
};

// A warp a block of 128 entries.
template <typename Entry>
__global__ void __launch_bounds__(kThreads)
    EntriesKernel(Entry entry, int m, int d, float* y, std::int64_t ldy, QuantizedOut out) {
  const int blocks = BlocksOf(d), lane = threadIdx.x % kWarpLanes;
  const std::int64_t task = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarpLanes;
  if (task >= std::int64_t{m} * blocks) return;  // a whole warp
  const std::int64_t r = task / blocks;
  const int b = static_cast<int>(task % blocks);
  float v[4] = {};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int i = b * kBlock + 4 * lane + j;
    if (i < d) v[j] = entry(r, i);
    if (i < d && y != nullptr) y[r * ldy + i] = v[j];
  }
  if (out.codes != nullptr) StoreBlock(v, out, r, b, d);
}

template <typename Entry>
void LaunchEntries(const char* name, const Entry& entry, int m, int d, float* y, std::int64_t ldy,
                   const QuantizedOut& out, cudaStream_t stream) {
  const std::int64_t tasks = std::int64_t{m} * BlocksOf(d);
  Launch(name, EntriesKernel<Entry>, GridFor(tasks, kWarps, name), kThreads, 0, stream, entry, m, d,
         y, ldy, out);
}

// A warp a row.
__global__ void __launch_bounds__(kThreads)
    StoreCacheKernel(CacheView c, const float* x, std::int64_t ldx, int m,
                     const std::int64_t* place, int row_bytes) {
  const int lane = threadIdx.x % kWarpLanes;
  const std::int64_t r = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarpLanes;
  if (r >= m) return;  // a whole warp
  const float* row = x + r * ldx;
  unsigned char* to = c.pool + place[r] * c.token_bytes + c.offset;
  const Fp8RowLayout at = Fp8LayoutOf(c.latent);
  const int dim = c.latent + c.rope;
  int used = dim * 4, halves = 0;  // bytes, first entry stored as BF16
  if (c.type == CacheType::kF32) {
    for (int i = lane; i < dim; i += kWarpLanes) reinterpret_cast<float*>(to)[i] = row[i];
    halves = dim;
  } else if (c.type == CacheType::kFp8) {
    used = at.rope + 2 * c.rope;
    halves = c.latent;
    for (int b = 0; b < BlocksOf(c.latent); ++b) {
      float v[4] = {}, scale;
      const int i = b * kBlock + 4 * lane;
      for (int j = 0; j < 4; ++j) v[j] = i + j < c.latent ? row[i + j] : 0.0f;
      const unsigned word = QuantizeBlock(v, ScaleRecipe::kPow2, &scale);
      // Codes are padded to 4 bytes with zeros.
      const unsigned kept =
          c.latent - i >= 4 ? ~0u : (1u << (8 * (c.latent - i > 0 ? c.latent - i : 0))) - 1u;
      if (i < at.scales) *reinterpret_cast<unsigned*>(to + i) = word & kept;
      if (lane == 0) *reinterpret_cast<float*>(to + at.scales + 4 * b) = scale;
    }
  } else {
    used = dim * 2;
  }
  std::uint16_t* half = reinterpret_cast<std::uint16_t*>(to + used - 2 * (dim - halves));
  for (int i = halves + lane; i < dim; i += kWarpLanes) half[i - halves] = ToBf16(row[i]);
  for (int i = used + lane; i < row_bytes; i += kWarpLanes) to[i] = 0;
}

}  // namespace

void RmsNorm(const RmsNormArgs& a, cudaStream_t stream) {
  if (a.m < 0 || a.d < 1) throw std::logic_error("RmsNorm: needs m >= 0 and d >= 1");
  if (a.residual == nullptr && a.sum != nullptr) {
    throw std::logic_error("RmsNorm: a sum without a residual");
  }
  Launch("RmsNorm", RmsNormKernel, GridFor(a.m, 1, "RmsNorm"), kThreads, std::size_t{4} * a.d,
         stream, a);
}

void Rope(float* x, std::int64_t ldx, int heads, std::int64_t ldh, int dim,
          const std::int32_t* position, int m, const float* table, cudaStream_t stream) {
  if (dim % 2 != 0) throw std::logic_error("Rope: dim is odd; it rotates pairs");
  const std::int64_t pairs = std::int64_t{m} * heads * (dim / 2);
  Launch("Rope", RopeKernel, GridFor(pairs, kThreads, "Rope"), kThreads, 0, stream, x, ldx, heads,
         ldh, dim, position, pairs, table);
}

void SwiGlu(const float* gate_up, std::int64_t ld, int m, int d, float* y, std::int64_t ldy,
            QuantizedOut out, cudaStream_t stream) {
  LaunchEntries("SwiGlu", GatedEntry{gate_up, ld, d}, m, d, y, ldy, out, stream);
}

void Quantize(const float* x, std::int64_t ldx, int m, int k, QuantizedOut out,
              cudaStream_t stream) {
  LaunchEntries("Quantize", PlainEntry{x, ldx}, m, k, nullptr, 0, out, stream);
}

void StoreCache(const CacheView& c, const float* x, std::int64_t ldx, int m,
                const std::int64_t* place, cudaStream_t stream) {
  if (c.token_bytes % 16 != 0 || c.offset % 16 != 0) {
    throw std::logic_error("StoreCache: token_bytes and offset must be multiples of 16");
  }
  const int bytes = static_cast<int>(CacheRowBytes(c.type, c.latent, c.rope));
  Launch("StoreCache", StoreCacheKernel, GridFor(m, kWarps, "StoreCache"), kThreads, 0, stream, c,
         x, ldx, m, place, bytes);
}

}  // namespace temper::kernels::cuda
