// What a build without TEMPER_CUDA says to cuda:N. Builds with it take learner/cuda instead.
#include "configs/error.h"
#include "engine/cuda/status.h"
#include "learner/device.h"

namespace temper::learner {

std::unique_ptr<Device> MakeCudaDevice(int number, const engine::Weights&) {
  throw MachineError("cuda:" + std::to_string(number) + ": " + engine::CudaStatus().remedy);
}

}  // namespace temper::learner
