#include "learner/cuda/place.h"

#include <c10/cuda/CUDAStream.h>

namespace temper::learner {

torch::Device PlaceOf(int number) { return {torch::kCUDA, c10::DeviceIndex(number)}; }

cudaStream_t StreamOf(const torch::Device& place) {
  return c10::cuda::getCurrentCUDAStream(place.index()).stream();
}

}  // namespace temper::learner
