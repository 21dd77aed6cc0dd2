#pragma once
// What kernels/cuda/*.cu take from CUDA's own header, for g++ and the machine of simt.h.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "tests/simt/host_runtime.h"
#include "tests/simt/simt.h"

#define TEMPER_SIMT 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// A template may not hold one (g++ can't place its copies in a section): dynamic memory serves it.
#define __shared__ static __attribute__((section("simt_shared")))

#define threadIdx (simt::self->thread_index)
#define blockIdx (simt::self->block_index)
// No macros: cudaLaunchConfig_t has members of these names.
inline const simt::Index& blockDim = simt::block_size;
inline const simt::Index& gridDim = simt::grid_size;

using dim3_part = unsigned;
struct dim3 {
  dim3_part x = 1, y = 1, z = 1;
  dim3(dim3_part x_ = 1, dim3_part y_ = 1, dim3_part z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int) {
  return cudaSuccess;
}
template <typename... P, typename... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* c, void (*kernel)(P...), A... arguments) {
  simt::HostState& host = simt::Host();
  ++host.launches;
  if (simt::DeviceOf(c->stream) != simt::CurrentDevice()) return cudaErrorInvalidResourceHandle;
  if (host.launch_error != cudaSuccess) return std::exchange(host.launch_error, cudaSuccess);
  const cudaLaunchConfig_t config = *c;
  simt::Enqueue(c->stream, [=] {
    simt::Run({config.gridDim.x, config.gridDim.y, config.gridDim.z},
              {config.blockDim.x, config.blockDim.y, config.blockDim.z}, config.dynamicSmemBytes,
              [=] { kernel(arguments...); });
  });
  return cudaSuccess;
}

using simt_where = std::source_location;

inline void __syncthreads(simt_where where = simt_where::current()) { simt::Barrier(where); }
inline void __syncwarp(std::uint32_t mask = 0xFFFFFFFFu, simt_where where = simt_where::current()) {
  int nothing = 0;
  simt::Collective([](void* const*, std::uint32_t) {}, mask, &nothing, where);
}

namespace simt {

/// Lane i's `from`-th value; `source` is already in the caller's terms.
template <typename T>
struct Exchange {
  T value;
  int source;
};

template <typename T>
T Shuffle(std::uint32_t mask, T value, int source, std::source_location where) {
  Exchange<T> mine{value, source};
  const auto resolve = [](void* const* data, std::uint32_t lanes) {
    T result[kWarp] = {};
    for (int i = 0; i < kWarp; ++i) {
      if (data[i] == nullptr) continue;
      const int from = static_cast<Exchange<T>*>(data[i])->source & (kWarp - 1);
      // A lane outside the mask has no defined value: poison.
      if ((lanes >> from & 1) == 0) {
        std::memset(&result[i], kPoison, sizeof(T));
      } else {
        result[i] = static_cast<Exchange<T>*>(data[from])->value;
      }
    }
    for (int i = 0; i < kWarp; ++i) {
      if (data[i] != nullptr) static_cast<Exchange<T>*>(data[i])->value = result[i];
    }
  };
  Collective(resolve, mask, &mine, where);
  return mine.value;
}

inline int Lane() { return self->number % kWarp; }

}  // namespace simt

template <typename T>
T __shfl_sync(std::uint32_t mask, T value, int lane, simt_where where = simt_where::current()) {
  return simt::Shuffle(mask, value, lane, where);
}
template <typename T>
T __shfl_xor_sync(std::uint32_t mask, T value, int bits, simt_where where = simt_where::current()) {
  return simt::Shuffle(mask, value, simt::Lane() ^ bits, where);
}
template <typename T>
T __shfl_down_sync(std::uint32_t mask, T value, int by, simt_where where = simt_where::current()) {
  const int lane = simt::Lane();
  return simt::Shuffle(mask, value, lane + by < simt::kWarp ? lane + by : lane, where);
}
inline std::uint32_t __ballot_sync(std::uint32_t mask, int predicate,
                                   simt_where where = simt_where::current()) {
  std::uint32_t word = predicate != 0 ? 1u : 0u;
  const auto resolve = [](void* const* data, std::uint32_t) {
    std::uint32_t all = 0;
    for (int i = 0; i < simt::kWarp; ++i) {
      if (data[i] != nullptr) all |= *static_cast<std::uint32_t*>(data[i]) << i;
    }
    for (int i = 0; i < simt::kWarp; ++i) {
      if (data[i] != nullptr) *static_cast<std::uint32_t*>(data[i]) = all;
    }
  };
  simt::Collective(resolve, mask, &word, where);
  return word;
}

/// Threads change only at waits, so a plain read and write is atomic.
template <typename T>
T atomicAdd(T* to, T value) {
  return std::exchange(*to, *to + value);
}
template <typename T>
T atomicMax(T* to, T value) {
  return std::exchange(*to, *to < value ? value : *to);
}

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a < b ? b : a; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
inline float max(float a, float b) { return a < b ? b : a; }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::lrintf(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(std::uint64_t{a} * b >> 32);
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const std::uint64_t bytes = std::uint64_t{b} << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i)
    result |= static_cast<unsigned>(bytes >> (8 * (selector >> (4 * i) & 7u)) & 255u) << (8 * i);
  return result;
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
