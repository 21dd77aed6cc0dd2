#pragma once
// The devices of this machine, and which of them this build's kernels run on.
#include <cstddef>
#include <string>
#include <vector>

namespace temper::engine::cuda {

struct FoundDevice {
  std::string name;
  int major = 0, minor = 0, multiprocessors = 0;
  double bytes = 0;
  std::size_t shared = 0;  // bytes that a block may ask for
  std::string problem;     // why this build can't use it, or empty
};

struct Found {
  int driver = 0, runtime = 0;  // 13000 is CUDA 13.0; driver 0: there is none
  std::vector<FoundDevice> devices;
  std::string problem;  // why there is no device at all, or empty
};
Found FindDevices();

/// Whether kernels built for `targets` run on a device of compute capability major.minor. Of the
/// list "80 89 90a 80-ptx" 90a takes 9.0 alone, 89 takes 8.9 and later 8.x, 80-ptx all from 8.0 on.
bool RunsOn(const std::string& targets, int major, int minor);
/// What this build was compiled for.
const char* Targets();
/// "13.0"
std::string VersionText(int version);

}  // namespace temper::engine::cuda
