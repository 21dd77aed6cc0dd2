#pragma once
// The two things that LibTorch knows of a device: its name there, and the stream it computes on.
#include <cuda_runtime.h>
#include <torch/torch.h>

namespace temper::learner {

torch::Device PlaceOf(int number);
/// The calling thread's.
cudaStream_t StreamOf(const torch::Device& place);

}  // namespace temper::learner
