#pragma once
// What this build and this machine can do with CUDA, in words for people.
#include <string>

namespace temper::engine {

struct DeviceStatus {
  bool usable = false;
  std::string found;   // devices, driver, runtime, build; empty without CUDA
  std::string remedy;  // what is wrong and what to do, where it isn't usable
};

/// Asks the driver; never throws.
DeviceStatus CudaStatus();

}  // namespace temper::engine
