#pragma once
// Memory of a kernel's test: guarded on the host's machine, managed on a device (device_test).
#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <vector>

#ifdef TEMPER_ON_DEVICE
#include <cuda_runtime.h>
#else
#include "tests/simt/simt.h"
#endif

namespace simt {

#ifdef TEMPER_ON_DEVICE
inline constexpr unsigned char kPoison = 0xFF;

/// The device picks its own order.
enum class Order { kForward, kReverse, kShuffled };
inline void SetOrder(Order, std::uint64_t = 1) {}

/// A few pages that both sides see. data() waits for the device, which may be using them.
class Memory {
 public:
  explicit Memory(std::size_t bytes) {
    if (cudaMallocManaged(&data_, bytes == 0 ? 1 : bytes) != cudaSuccess) {
      throw std::runtime_error("no device memory for a test");
    }
    std::memset(data_, kPoison, bytes);
  }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  void* data() const {
    const cudaError_t status = cudaDeviceSynchronize();
    if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
    return data_;
  }

 private:
  void* data_ = nullptr;
};
#endif

template <typename T>
class Buffer {
 public:
  explicit Buffer(std::size_t count) : memory_(count * sizeof(T)), count_(count) {}
  explicit Buffer(const std::vector<T>& copy) : Buffer(copy.size()) {
    if (count_ > 0) std::memcpy(memory_.data(), copy.data(), count_ * sizeof(T));
  }
  T* data() const { return static_cast<T*>(memory_.data()); }
  std::vector<T> Values() const { return std::vector<T>(data(), data() + count_); }

 private:
  Memory memory_;
  std::size_t count_;
};

}  // namespace simt
