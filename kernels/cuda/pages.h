#pragma once
// Where a token's latent row lies in the paged cache.
#include "kernels/cuda/cuda_kernels.h"

namespace temper::kernels::cuda {

/// Throws std::logic_error on shapes that mean nothing.
void CheckAttention(const AttentionArgs& args);

__device__ __forceinline__ const unsigned char* KeyAt(const AttentionArgs& a, int row,
                                                      int position) {
  const int tokens = a.cache.page_tokens;
  const std::int64_t page = a.pages[(a.table != nullptr ? a.table[row] : row) * a.ld_pages + position / tokens];
  return a.cache.pool + (page * tokens + position % tokens) * a.cache.token_bytes + a.cache.offset;
}

}  // namespace temper::kernels::cuda
