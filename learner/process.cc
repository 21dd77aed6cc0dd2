#include "learner/process.h"

#include <malloc.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "configs/error.h"
#include "learner/core/rank_place.h"
#include "learner/rank_store.h"

namespace temper::learner {

namespace {

// One code path of MKL whatever the processor, the same for every alignment; its threads sleep
// between regions, because the kernels' pool works there. cuBLAS sums in one order only with a
// workspace of this form.
constexpr const char* kSettings[][2] = {{"MKL_CBWR", "AVX2,STRICT"},
                                        {"OMP_WAIT_POLICY", "PASSIVE"},
                                        {"OMP_DYNAMIC", "FALSE"},
                                        {"CUBLAS_WORKSPACE_CONFIG", ":4096:8"}};

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
  throw MachineError(
      std::string("temper-learner: could not start itself again with pinned numerics: ") +
      std::strerror(errno));
}

int UseThreads(int threads) {
  if (threads <= 0) {
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    threads = std::max(1, cores / ReadRankPlace().local_size);
  }
  torch::set_num_threads(threads);
  // The ranks say themselves who is gone: c10d's own lines would stand beside it.
  setenv("TORCH_CPP_LOG_LEVEL", "FATAL", /*overwrite=*/0);
  c10::initLogging();
  // The same for NCCL's watchdog, which would end the process by SIGABRT first.
  setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", /*overwrite=*/0);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  // Activations come and go every step: keep their pages instead of asking the kernel for zeroed
  // ones again.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // glibc's ceiling
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
  return threads;
}

int OnDevice(const std::string& device, const std::function<int()>& run) {
  try {
    return run();
  } catch (const c10::OutOfMemoryError& error) {
    throw MachineError(device + ": out of memory: " + FirstLine(error) +
                       "; try learner.gradient_checkpointing, more "
                       "gradient_accumulation_steps, a narrower dtype or more learner.ranks");
  } catch (const MachineError&) {
    throw;
  } catch (const std::exception& error) {
    const std::string text = FirstLine(error);  // LibTorch's or a kernel's
    if (text.find("CUDA error") == std::string::npos) throw;
    throw MachineError(device + ": " + text +
                       "; the run goes on from its last checkpoint with --resume");
  }
}

engine::Numerics NumericsOf(const configs::Config& config) {
  return engine::WithArithmetic(
      engine::ParseNumerics(config.dtype, config.cache_dtype, config.fp8_scale), config.arithmetic);
}

std::string NumericsId(const configs::Config& config) {
  std::string id = NumericsOf(config).id();
  // Other sums, hence other bits.
  if (config.learner.forward == "libtorch") id.replace(0, id.find('/'), "libtorch");
  return id;
}

}  // namespace temper::learner
