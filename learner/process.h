#pragma once
// What a process that trains must fix before LibTorch starts: one code path, one thread count,
// deterministic algorithms.
#include <functional>
#include <string>

#include "configs/config.h"
#include "engine/numerics.h"

namespace temper::learner {

/// First line of temper-learner's main. MKL_CBWR and OMP_WAIT_POLICY are read when libraries load,
/// so where they are not set yet this sets them and executes the program again (same pid, same
/// argv). Returns when they are set.
void PinNumerics(char** argv);

/// ATen's thread count and deterministic algorithms. `threads` 0 = all cores. Returns the count
/// used.
int UseThreads(int threads);

/// run(), where a device's lack of memory or failure, as LibTorch or a kernel words it, becomes
/// MachineError.
int OnDevice(const std::string& device, const std::function<int()>& run);

/// dtype, cache_dtype and fp8_scale of a run.
engine::Numerics NumericsOf(const configs::Config& config);

/// "canon-1/fp8/cache-bf16"; the plain forward of LibTorch is another id.
std::string NumericsId(const configs::Config& config);

}  // namespace temper::learner
