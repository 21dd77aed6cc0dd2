#pragma once
// Tensor cores, ldmatrix and cp.async: PTX on a device, their twins of tests/simt elsewhere.
#include <cuda_runtime.h>

#include <cstdint>

#ifdef TEMPER_SIMT
#include "tests/simt/warp.h"
#endif

namespace temper::kernels::cuda {

#ifdef TEMPER_SIMT
using simt::CopyAsync;
using simt::CopyCommit;
using simt::LoadMatrix;
using simt::LoadMatrixTransposed;
using simt::MmaBf16;
using simt::MmaE4m3;
template <int kPending>
void CopyWait() {
  simt::CopyWait(kPending);
}
#else
#define TEMPER_MMA(name, shape, type)                                                 \
  __device__ __forceinline__ void name(float(&d)[4], const std::uint32_t(&a)[4],      \
                                       const std::uint32_t(&b)[2]) {                  \
    asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type              \
                 ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"         \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])); \
  }
/// d += a b: A [16, 16] and B [16, 8] of BF16, A [16, 32] and B [32, 8] of E4M3; row by column.
TEMPER_MMA(MmaBf16, "m16n8k16", "bf16")
TEMPER_MMA(MmaE4m3, "m16n8k32", "e4m3")
#undef TEMPER_MMA

__device__ __forceinline__ std::uint32_t SharedAddress(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}
/// Four 8 x 8 matrices of 16-bit elements; lane 8 i + r gives the address of row r of matrix i.
__device__ __forceinline__ void LoadMatrix(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}
__device__ __forceinline__ void LoadMatrixTransposed(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}
/// 16 bytes past L1, of which the first `valid` are read and the rest zeroed.
__device__ __forceinline__ void CopyAsync(void* shared, const void* global, int valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(SharedAddress(shared)), "l"(global), "r"(valid)
               : "memory");
}
__device__ __forceinline__ void CopyCommit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Until at most kPending of the newest groups are open.
template <int kPending>
__device__ __forceinline__ void CopyWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
#endif

}  // namespace temper::kernels::cuda
