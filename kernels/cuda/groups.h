#pragma once
// Which layer and which rows a block of a grouped linear layer takes: by offsets on the device, so
// that the host needs to know nothing of the router's choice.
#include <cstdint>

#include "kernels/cuda/cuda_kernels.h"

namespace temper::kernels::cuda {

struct GroupTile {
  int group = 0;
  std::int64_t row0 = 0;  // of x and y
  int rows = 0;           // 0: nothing to do
};

/// Tiles of `each` rows that cover every group, whatever the offsets are.
inline std::int64_t GroupTiles(const Groups& g, int m, int each) {
  if (g.offset == nullptr) return std::int64_t{g.count} * ((m + each - 1) / each);
  return m / each + (m < g.count ? m : g.count);
}

__device__ inline GroupTile FindGroupTile(const Groups& g, int m, int each, int tile) {
  if (g.offset == nullptr) {
    const int tiles = (m + each - 1) / each, row0 = tile % tiles * each;
    return {tile / tiles, row0, min(each, m - row0)};
  }
  GroupTile found;
#pragma unroll 8
  for (int i = 0; i < g.count; ++i) {
    const int first = g.offset[i], rows = g.offset[i + 1] - first;
    const int tiles = (rows + each - 1) / each;
    if (tile >= 0 && tile < tiles) found = {i, first + tile * each, min(each, rows - tile * each)};
    tile -= tiles;
  }
  return found;
}

}  // namespace temper::kernels::cuda
