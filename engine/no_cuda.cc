// What a build without TEMPER_CUDA says to cuda:N. Builds with it take engine/cuda instead.
#include "configs/error.h"
#include "engine/cuda/status.h"
#include "engine/decoder.h"
#include "engine/fabric.h"

namespace temper::engine {

std::unique_ptr<Decoder> MakeCudaDecoder(std::shared_ptr<const Weights>, const EngineOptions&,
                                         DeviceRange devices) {
  CheckCudaDevice(devices.first);
  return nullptr;
}

void CheckCudaDevice(int device) {
  throw MachineError("cuda:" + std::to_string(device) + ": " + CudaStatus().remedy);
}

std::unique_ptr<Fabric> OpenFabric(const std::string& device) {
  throw MachineError(device + ": " + CudaStatus().remedy);
}

DeviceStatus CudaStatus() {
  return {false, "", "this build computes on the CPU alone; build with cmake --preset cuda"};
}

}  // namespace temper::engine
