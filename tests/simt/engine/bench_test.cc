// The benchmark's own logic at tiny shapes: every kernel runs inside its buffers, every share is a
// share.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "bench/cuda_kernels.h"
#include "configs/error.h"
#include "tests/simt/host_runtime.h"

namespace temper::bench {
namespace {

TEST(CudaBenchTest, MeasuresEveryKernelOnceAndMore) {
  const Json report = BenchCudaKernels(0, TinySizes());
  EXPECT_GT(report["copy_gb_s"].get<double>(), 0);
  std::set<std::string> names;
  for (const Json& k : report["kernels"]) {
    names.insert(k["kernel"].get<std::string>());
    EXPECT_GT(k["us"].get<double>(), 0);
    EXPECT_TRUE(std::isfinite(k["gb_s"].get<double>()));
    EXPECT_NEAR(k["copy_share"].get<double>(),
                k["gb_s"].get<double>() / report["copy_gb_s"].get<double>(), 1e-9);
  }
  for (const char* name :
       {"RmsNorm", "Quantize", "Rope", "SwiGlu", "Route", "SortByExpert", "GatherRows",
        "CombineExperts", "LogSoftmax", "Sample", "TensorLinear BF16", "TensorLinear W8A8",
        "TensorLinear experts FP8", "Fp8Gemm", "MlaAttentionTensor decode FP8",
        "MlaAttentionTensor prefill BF16"})
    EXPECT_TRUE(names.count(name)) << name;
  EXPECT_EQ(simt::Host().used, 0u);
}

TEST(CudaBenchTest, SaysThatThereIsNoDevice) {
  simt::Host().devices = 0;
  EXPECT_THROW(BenchCudaKernels(0, TinySizes()), MachineError);
  simt::Host() = {};
}

}  // namespace
}  // namespace temper::bench
