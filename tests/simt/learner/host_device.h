#pragma once
// What a test may change of the device that host_device.cc shows to LibTorch.
#include <cstddef>

namespace temper::learner {

/// Larger tensors are refused as LibTorch refuses them on a device without memory.
extern std::size_t largest_allocation;

}  // namespace temper::learner
