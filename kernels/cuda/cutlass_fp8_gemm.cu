// FP8 GEMM with 1 x 128 and 128 x 128 scales, dense and grouped by experts, by CUTLASS for sm_90a.
// One kernel serves both: a dense layer is one group. The groups' shapes and addresses are written
// by a kernel of our own from the experts' offsets, so nothing waits for the host.
#include <cutlass/cutlass.h>
#include <cutlass/gemm/device/gemm_universal_adapter.h>

#include <cute/tensor.hpp>
#include <cutlass/detail/blockwise_scale_layout.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/dispatch_policy.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/dispatch_policy.hpp>
#include <cutlass/gemm/group_array_problem_shape.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>
#include <cutlass/util/packed_stride.hpp>

#include "kernels/cuda/launch.h"

namespace temper::kernels::cuda {
namespace {

using Code = cutlass::float_e4m3_t;
using RowMajor = cutlass::layout::RowMajor;
using ColumnMajor = cutlass::layout::ColumnMajor;
using Tile = cute::Shape<cute::_128, cute::_128, cute::_128>;
using Cluster = cute::Shape<cute::_1, cute::_2, cute::_1>;
using Problem = cutlass::gemm::GroupProblemShape<cute::Shape<int, int, int>>;
using Scales = cutlass::detail::Sm90BlockwiseScaleConfig<1, kBlock, kBlock, cute::GMMA::Major::K,
                                                         cute::GMMA::Major::K>;
using ScalesX = decltype(Scales::deduce_layoutSFA());
using ScalesW = decltype(Scales::deduce_layoutSFB());
constexpr int kCodeAlign = 16, kFloatAlign = 4;  // elements in 16 bytes

using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
    cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster,
    cutlass::epilogue::collective::EpilogueTileAuto, float, float, void, RowMajor*, kFloatAlign,
    float, RowMajor*, kFloatAlign, cutlass::epilogue::PtrArrayTmaWarpSpecializedCooperative,
    cutlass::epilogue::fusion::LinearCombination<float, float, void>>::CollectiveOp;

using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
    cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Code, cute::tuple<RowMajor*, ScalesX*>,
    kCodeAlign, Code, cute::tuple<ColumnMajor*, ScalesW*>, kCodeAlign, float, Tile, Cluster,
    cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
        sizeof(typename Epilogue::SharedStorage))>,
    cutlass::gemm::KernelPtrArrayTmaWarpSpecializedCooperativeFP8BlockScaledAccum>::CollectiveOp;

using Kernel = cutlass::gemm::kernel::GemmUniversal<Problem, Mainloop, Epilogue>;
using Gemm = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;

/// What the kernel reads of each group; arrays [groups] at the workspace's beginning.
struct GroupTable {
  Problem::UnderlyingProblemShape* shape;
  const Code **x, **w;
  const float **x_scale, **w_scale;
  float** y;
  typename Kernel::InternalStrideA* x_stride;
  typename Kernel::InternalStrideB* w_stride;
  typename Kernel::InternalStrideD* y_stride;
  ScalesX* x_layout;
  ScalesW* w_layout;
  std::size_t bytes;  // used so far
};

constexpr std::size_t kAlign = 256;

GroupTable Lay(int groups, unsigned char* base) {
  GroupTable g{};
  const auto take = [&](auto*& pointer) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + g.bytes);
    const std::size_t bytes = sizeof(*pointer) * static_cast<std::size_t>(groups);
    g.bytes += (bytes + kAlign - 1) / kAlign * kAlign;
  };
  take(g.shape), take(g.x), take(g.w), take(g.x_scale), take(g.w_scale), take(g.y);
  take(g.x_stride), take(g.w_stride), take(g.y_stride), take(g.x_layout), take(g.w_layout);
  return g;
}

__global__ void DescribeKernel(GroupedGemmArgs a, GroupTable g) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= a.groups) return;
  const std::int64_t first = a.offset != nullptr ? a.offset[i] : 0;
  const int rows = a.offset != nullptr ? a.offset[i + 1] - a.offset[i] : a.rows;
  const std::int64_t blocks = a.k / kBlock, block_rows = a.n / kBlock;
  g.shape[i] = cute::make_shape(rows, a.n, a.k);
  g.x[i] = reinterpret_cast<const Code*>(a.x) + first * a.k;
  g.w[i] = reinterpret_cast<const Code*>(a.w) + std::int64_t{i} * a.n * a.k;
  g.x_scale[i] = a.x_scale + first * blocks;
  g.w_scale[i] = a.w_scale + i * block_rows * blocks;
  g.y[i] = a.y + first * a.n;
  g.x_stride[i] = cutlass::make_cute_packed_stride(typename Kernel::InternalStrideA{},
                                                   cute::make_shape(rows, a.k, 1));
  g.w_stride[i] = cutlass::make_cute_packed_stride(typename Kernel::InternalStrideB{},
                                                   cute::make_shape(a.n, a.k, 1));
  g.y_stride[i] = cutlass::make_cute_packed_stride(typename Kernel::InternalStrideD{},
                                                   cute::make_shape(rows, a.n, 1));
  g.x_layout[i] = Scales::tile_atom_to_shape_SFA(cute::make_shape(rows, a.n, a.k, 1));
  g.w_layout[i] = Scales::tile_atom_to_shape_SFB(cute::make_shape(rows, a.n, a.k, 1));
}

typename Gemm::Arguments ArgumentsOf(const GroupTable& g, int groups, int multiprocessors) {
  typename Gemm::Arguments arguments{};
  arguments.mode = cutlass::gemm::GemmUniversalMode::kGrouped;
  // Shapes are known on the device alone: the persistent grid fills the multiprocessors.
  arguments.problem_shape = {groups, g.shape, nullptr};
  arguments.mainloop = {g.x,       g.x_stride, g.w,       g.w_stride,
                        g.x_scale, g.x_layout, g.w_scale, g.w_layout};
  arguments.epilogue.thread.alpha = 1.0f;
  arguments.epilogue.thread.beta = 0.0f;
  arguments.epilogue.ptr_D = g.y;
  arguments.epilogue.dD = g.y_stride;
  arguments.hw_info.sm_count = multiprocessors;
  return arguments;
}

void CheckCutlass(cutlass::Status status) {
  if (status == cutlass::Status::kSuccess) return;
  throw CudaError(std::string("Fp8GroupedGemm: ") + cutlass::cutlassGetStatusString(status));
}

}  // namespace

std::size_t GroupedGemmWorkspace(int groups, int multiprocessors) {
  const GroupTable g = Lay(groups, nullptr);
  return g.bytes + Gemm::get_workspace_size(ArgumentsOf(g, groups, multiprocessors));
}

void Fp8GroupedGemm(const GroupedGemmArgs& a, cudaStream_t stream) {
  if (a.groups < 1 || a.rows < 0 || a.n < kBlock || a.k < kBlock || a.n % kBlock != 0 ||
      a.k % kBlock != 0 || (a.offset == nullptr && a.groups != 1)) {
    throw std::logic_error("Fp8GroupedGemm: needs n and k multiples of 128, offsets with groups");
  }
  if (a.rows == 0) return;
  constexpr int kThreads = 128;
  const GroupTable g = Lay(a.groups, static_cast<unsigned char*>(a.workspace));
  Launch("Fp8GroupedGemm groups", DescribeKernel, GridFor(a.groups, kThreads, "Fp8GroupedGemm"),
         kThreads, 0, stream, a, g);
  Gemm gemm;
  void* rest = static_cast<unsigned char*>(a.workspace) + g.bytes;
  CheckCutlass(gemm.initialize(ArgumentsOf(g, a.groups, a.multiprocessors), rest, stream));
  CheckCutlass(gemm.run(stream));
}

}  // namespace temper::kernels::cuda
