#include "learner/device.h"

#include "configs/error.h"

namespace temper::learner {

std::unique_ptr<Device> MakeDevice(const std::string& name, const engine::Weights&) {
  if (name == "cpu") return nullptr;
  throw UserError("device: " + name + ", but this temper-learner was built without CUDA; take \"cpu\" or build with -DTEMPER_CUDA=ON");
}

}  // namespace temper::learner
