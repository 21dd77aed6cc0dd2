#pragma once
// Tensor-core fragments, ldmatrix and cp.async with their PTX meaning (ISA 8.5, sections 9.7.9.25
// and 9.7.14.5). A tensor core's order of sums is nobody's promise: products are summed exactly
// here and rounded toward zero once, as far from the sequential order as the hardware may be.
#include <cstdint>
#include <source_location>

namespace simt {

/// D = A B + C over a warp, row by column: A [16, 16] and B [16, 8] BF16, C and D [16, 8] FP32.
void MmaBf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
             std::source_location where = std::source_location::current());
/// The same over A [16, 32] and B [32, 8] of E4M3.
void MmaE4m3(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
             std::source_location where = std::source_location::current());

/// Four 8 x 8 matrices of 16-bit elements; lane 8 i + r gives the address of row r of matrix i.
void LoadMatrix(std::uint32_t (&r)[4], const void* row,
                std::source_location where = std::source_location::current());
void LoadMatrixTransposed(std::uint32_t (&r)[4], const void* row,
                          std::source_location where = std::source_location::current());

/// 16 bytes, of which the first `valid` are read. Done when CopyWait reaches their group.
void CopyAsync(void* shared, const void* global, int valid,
               std::source_location where = std::source_location::current());
void CopyCommit();
/// Until at most `pending` of the newest groups are still open.
void CopyWait(int pending);

}  // namespace simt
