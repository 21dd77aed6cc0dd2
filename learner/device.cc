#include "learner/device.h"

#include "engine/decoder.h"

namespace temper::learner {

std::unique_ptr<Device> MakeDevice(const std::string& name, const engine::Weights& weights) {
  const int number = engine::DeviceNumber(name);
  return number < 0 ? nullptr : MakeCudaDevice(number, weights);
}

}  // namespace temper::learner
