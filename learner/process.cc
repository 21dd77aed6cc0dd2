#include "learner/process.h"

#include <torch/torch.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "configs/error.h"

namespace temper::learner {

namespace {

// One code path of MKL whatever the processor, the same for every alignment; its threads sleep between regions, because the
// kernels' pool works there.
constexpr const char* kSettings[][2] = {{"MKL_CBWR", "AVX2,STRICT"}, {"OMP_WAIT_POLICY", "PASSIVE"}, {"OMP_DYNAMIC", "FALSE"}};

}  // namespace

void PinNumerics(char** argv) {
  bool missing = false;
  for (const auto& [name, value] : kSettings) {
    const char* now = std::getenv(name);
    if (now && std::strcmp(now, value) == 0) continue;
    missing = true;
    setenv(name, value, 1);
  }
  if (!missing) return;
  execv("/proc/self/exe", argv);
  throw MachineError(std::string("temper-learner: could not start itself again with pinned numerics: ") + std::strerror(errno));
}

int UseThreads(int threads) {
  if (threads <= 0) threads = std::max(1u, std::thread::hardware_concurrency());
  torch::set_num_threads(threads);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  return threads;
}

}  // namespace temper::learner
