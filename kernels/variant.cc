#include "kernels/variant.h"

#include <new>

#include "kernels/cpu.h"
#include "kernels/parts.h"

namespace temper::kernels {

const Variant& ActiveVariant() {
  switch (ActiveIsa()) {
    case Isa::kAvx512:
      return HasVbmi() ? kAvx512VbmiVariant : kAvx512Variant;
    case Isa::kAvx2:
      return kAvx2Variant;
    case Isa::kScalar:
      break;
  }
  return kScalarVariant;
}

Scratch::~Scratch() { ::operator delete[](data_, std::align_val_t{64}); }

float* Scratch::Reserve(std::int64_t floats) {
  if (floats > size_) {
    ::operator delete[](data_, std::align_val_t{64});
    data_ = nullptr;
    size_ = 0;
    const std::int64_t size = floats + floats / 4 + 64;
    data_ = static_cast<float*>(
        ::operator new[](static_cast<std::size_t>(size) * sizeof(float), std::align_val_t{64}));
    size_ = size;
  }
  return data_;
}

}  // namespace temper::kernels
