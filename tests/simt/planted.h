#pragma once
// Kernels with planted faults: what the machine must find. Each sums or copies as its twin does.
#include <cuda_runtime.h>

namespace simt::planted {

void Reverse(const float* x, int n, float* y);  // sound: through shared memory
void ReverseWithoutBarrier(const float* x, int n, float* y);
void SumRace(const float* x, int n, float* y);             // lanes add to one word
void WarpSumWithoutSync(const float* x, float* y);         // counts on lanes in step
void BarrierInABranch(const float* x, int n, float* y);    // half of the block waits
void ShuffleWithLeavers(const float* x, int n, float* y);  // the full mask, some lanes gone
void ReadsAhead(const float* x, float* y);  // another warp's words, after waits of its own
void WriteOneTooFar(const float* x, int n, float* y);
void ReadOneTooFar(const float* x, int n, float* y);
void SharedOverrun(float* y);
void CopyWithoutWait(const float* x, float* y);     // cp.async read before it is done
void BlockReadsItsNeighbour(int blocks, float* y);  // through global memory, no second launch

}  // namespace simt::planted
