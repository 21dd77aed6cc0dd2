#pragma once
// A device, its stream, and memory taken from it in pieces that are measured before they are taken.
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace temper::engine::cuda {

/// A device that this build's kernels run on, and a stream of its own. Throws MachineError that
/// says what is missing: driver, device, its number, its age.
class Device {
 public:
  explicit Device(int number);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  /// Makes it the calling thread's.
  void Use() const;
  cudaStream_t stream() const { return stream_; }
  const std::string& name() const { return name_; }  // "cuda:0"
  int number() const { return number_; }
  int multiprocessors() const { return multiprocessors_; }
  std::size_t shared() const { return shared_; }  // bytes that a block may ask for
  std::int64_t free_bytes() const;

  /// Throws MachineError with what was done where status is none of success.
  void Check(cudaError_t status, const char* doing) const;
  /// Throws MachineError that says how much was wanted, for what, and how much is free.
  std::shared_ptr<std::byte> Allocate(std::size_t bytes, const std::string& what) const;
  std::shared_ptr<std::byte> AllocateHost(std::size_t bytes) const;
  void Copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) const;
  void Wait() const;
  void Wait(cudaEvent_t event) const;
  /// `look(seconds)` is called now and then while Wait() waits, which may be for other devices: it
  /// throws where that has no end.
  void LookWhileWaiting(std::function<void(double)> look) { look_ = std::move(look); }

 private:
  /// Until `ask` says something else than "not ready".
  void Poll(const std::function<cudaError_t()>& ask) const;

  std::function<void(double)> look_;
  std::string name_;
  int number_, multiprocessors_ = 0;
  std::size_t shared_ = 0;
  cudaStream_t stream_ = nullptr;
};

/// Pieces of one allocation. A walk takes them in order: the first one measures (addresses are
/// null), Commit() allocates, each walk after Rewind() gets the same addresses. So what lies here
/// keeps its place however often it is written.
class Arena {
 public:
  void Rewind() { next_ = 0; }
  bool measuring() const { return !committed_; }
  /// `bytes` of a piece of which `room` are kept (0: as many).
  std::byte* Take(std::size_t bytes, std::size_t room = 0);
  template <typename T>
  T* Take(std::int64_t count) {
    return reinterpret_cast<T*>(Take(std::size_t(count) * sizeof(T)));
  }
  void Commit(const Device& device, const std::string& what);
  /// Forgets everything: the next walk measures again.
  void Clear();

 private:
  struct Piece {
    std::size_t room, offset;
    std::byte* data;
  };
  std::vector<Piece> pieces_;
  std::vector<std::shared_ptr<std::byte>> memory_;
  std::size_t next_ = 0, bytes_ = 0;
  bool committed_ = false;
};

}  // namespace temper::engine::cuda
