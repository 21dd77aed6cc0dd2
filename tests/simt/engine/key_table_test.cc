// The table of cache rows holds what sequences need, however they grew.
#include "engine/cuda/key_table.h"

#include <gtest/gtest.h>

#include "tests/simt/host_runtime.h"

namespace temper::engine::cuda {
namespace {

TEST(KeyTableTest, LongerSequencesMakeRowsLongerNotMore) {
  const Device device(0);
  KeyTable table(device, 1 << 16);
  std::size_t used = 0;
  for (int keys = 1; keys <= 1 << 16; keys *= 2) {
    table.Begin(keys);
    table.Flush();
    device.Wait();
    used = simt::Host().used;
  }
  const std::size_t rows = std::size_t{64} << 16;  // 64 sequences, 65,536 places
  EXPECT_GE(used, rows * 4);
  EXPECT_LE(used, rows * 4 + (1 << 20));
}

}  // namespace
}  // namespace temper::engine::cuda
