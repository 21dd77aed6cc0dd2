// A device for LibTorch whose memory is the host's: each operation runs by the CPU's code, and one
// that mixes its tensors with the CPU's is an error, as on CUDA. kernels/cuda run beside it on the
// machine of simt.h.
#include "tests/simt/learner/host_device.h"

#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <cstdlib>
#include <cstring>

#include "learner/cuda/place.h"

namespace temper::learner {

std::size_t largest_allocation = SIZE_MAX;

namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;
const c10::Device kPlace(kType, 0);

struct Memory : c10::Allocator {
  c10::DataPtr allocate(std::size_t bytes) override {
    TORCH_CHECK_WITH(OutOfMemoryError, bytes <= largest_allocation,
                     "CUDA out of memory. Tried to allocate ", bytes, " bytes.");
    // Poisoned: a value that nobody wrote is seen.
    const std::size_t room = (bytes + 127) / 64 * 64;
    void* p = std::aligned_alloc(64, room);
    std::memset(p, 0xFF, room);
    return {p, p, &std::free, kPlace};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};
Memory memory;

/// One device, one stream; whatever was launched has already run.
struct Guard : c10::impl::NoOpDeviceGuardImpl<kType> {
  void record(void** event, const c10::Stream&, const c10::DeviceIndex,
              const c10::EventFlag) const override {
    static int mark;
    *event = &mark;
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  void synchronizeEvent(void*) const override {}
  c10::Device getDevice() const override { return kPlace; }
  c10::Device exchangeDevice(c10::Device) const override { return kPlace; }
  c10::Stream getStream(c10::Device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, kPlace);
  }
  c10::Stream getDefaultStream(c10::Device device) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return getStream(kPlace); }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};

at::Tensor Empty(at::IntArrayRef size, std::optional<at::ScalarType> type,
                 std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory,
                                   c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   type.value_or(at::kFloat), format);
}

at::Tensor EmptyStrided(at::IntArrayRef size, at::IntArrayRef stride,
                        std::optional<at::ScalarType> type, std::optional<at::Layout>,
                        std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &memory,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           type.value_or(at::kFloat));
}

at::Tensor OfHost(const at::Tensor& t) {
  if (t.is_cpu()) return t;
  return at::from_blob(t.data_ptr(), t.sizes(), t.strides(),
                       at::TensorOptions().dtype(t.scalar_type()));
}

at::Tensor CopyFrom(const at::Tensor& from, const at::Tensor& to, bool) {
  at::AutoDispatchBelowAutograd below;
  OfHost(to).copy_(OfHost(from));
  return to;
}

at::Tensor CopyFromAndResize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) {
    const at::Tensor room = at::empty(from.sizes(), to.options());
    to.unsafeGetTensorImpl()->set_storage_keep_dtype(room.storage());
    to.unsafeGetTensorImpl()->set_sizes_contiguous(from.sizes());
  }
  return CopyFrom(from, to, false);
}

void OnTheHost(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto check = [&](const at::Tensor& t) {
    TORCH_CHECK(!t.defined() || !t.is_cpu() || t.dim() == 0, op.schema().name(),
                " was given a tensor of the CPU among the device's");
  };
  const std::size_t count = op.schema().arguments().size();
  for (std::size_t i = stack->size() - count; i < stack->size(); ++i) {
    const c10::IValue& value = (*stack)[i];
    if (value.isTensor()) check(value.toTensor());
    if (!value.isTensorList()) continue;
    for (const at::Tensor& t : value.toTensorVector()) check(t);
  }
  at::native::cpu_fallback(op, stack);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&OnTheHost>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", Empty);
  library.impl("empty_strided", EmptyStrided);
  library.impl("as_strided", at::native::as_strided_tensorimpl);
  library.impl("view", at::native::view);
  library.impl("_reshape_alias", at::native::_reshape_alias);
  library.impl("_copy_from", CopyFrom);
  library.impl("_copy_from_and_resize", CopyFromAndResize);
}

bool Register() {
  c10::register_privateuse1_backend("simt");
  at::RegisterPrivateUse1HooksInterface(new Hooks);  // LibTorch keeps it
  c10::SetAllocator(kType, &memory);
  return true;
}

}  // namespace

torch::Device PlaceOf(int) {
  static const bool registered = Register();
  static_cast<void>(registered);
  return kPlace;
}

cudaStream_t StreamOf(const torch::Device&) { return nullptr; }

}  // namespace temper::learner
