#include "engine/cuda/memory.h"

#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <thread>

#include "configs/error.h"
#include "engine/cuda/status.h"
#include "engine/cuda/targets.h"

namespace temper::engine::cuda {

namespace {

// A decode step takes a millisecond or more.
constexpr auto kSpin = std::chrono::milliseconds(1);
constexpr auto kNap = std::chrono::microseconds(20);
constexpr auto kLook = std::chrono::milliseconds(200);
constexpr std::size_t kAlign = 256;  // of a piece; the widest load of a kernel is 16 bytes

std::string Amount(double bytes) {
  char text[32];
  const bool large = bytes >= double(1 << 30) / 10;
  std::snprintf(text, sizeof text, large ? "%.2f GiB" : "%.2f MiB",
                bytes / (1 << (large ? 30 : 20)));
  return text;
}

}  // namespace

Device::Device(int number) : name_("cuda:" + std::to_string(number)), number_(number) {
  const Found found = FindDevices();
  if (!found.problem.empty()) throw MachineError(name_ + ": " + found.problem);
  if (number >= int(found.devices.size())) {
    throw MachineError(
        name_ + ": this machine has " + std::to_string(found.devices.size()) +
        (found.devices.size() == 1 ? " device" : " devices") + "; choose cuda:0" +
        (found.devices.size() > 1 ? " to cuda:" + std::to_string(found.devices.size() - 1) : "") +
        " or device cpu");
  }
  const FoundDevice& device = found.devices[std::size_t(number)];
  if (!device.problem.empty()) throw MachineError(name_ + ": " + device.problem);
  multiprocessors_ = device.multiprocessors;
  shared_ = device.shared;
  Use();
  Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
}

Device::~Device() { cudaStreamDestroy(stream_); }

void Device::Use() const { Check(cudaSetDevice(number_), "choosing the device"); }

void Device::Check(cudaError_t status, const char* doing) const {
  if (status == cudaSuccess) return;
  throw MachineError(name_ + ": " + doing + ": " + cudaGetErrorString(status) +
                     "; nvidia-smi and the kernel's log may say why");
}

std::int64_t Device::free_bytes() const {
  std::size_t free = 0, total = 0;
  Check(cudaMemGetInfo(&free, &total), "asking for its memory");
  return std::int64_t(free);
}

std::shared_ptr<std::byte> Device::Allocate(std::size_t bytes, const std::string& what) const {
  void* p = nullptr;
  const cudaError_t status = cudaMalloc(&p, bytes == 0 ? 1 : bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t free = 0, total = 0;
    Check(cudaMemGetInfo(&free, &total), "asking for its memory");
    throw MachineError(
        name_ + ": out of memory: " + what + " want " + Amount(double(bytes)) + "; " +
        Amount(double(free)) + " of " + Amount(double(total)) +
        " are free; fewer cache_tokens or rows, a narrower dtype, or another device");
  }
  Check(status, what.c_str());
  return {static_cast<std::byte*>(p), [](std::byte* at) { cudaFree(at); }};
}

std::shared_ptr<std::byte> Device::AllocateHost(std::size_t bytes) const {
  void* p = nullptr;
  Check(cudaMallocHost(&p, bytes == 0 ? 1 : bytes), "taking pinned memory of the host");
  return {static_cast<std::byte*>(p), [](std::byte* at) { cudaFreeHost(at); }};
}

void Device::Copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) const {
  if (bytes > 0) Check(cudaMemcpyAsync(to, from, bytes, kind, stream_), "copying");
}

void Device::Wait() const {
  if (look_) return Poll([&] { return cudaStreamQuery(stream_); });
  Check(cudaStreamSynchronize(stream_), "computing");
}

void Device::Wait(cudaEvent_t event) const {
  if (look_) return Poll([&] { return cudaEventQuery(event); });
  Check(cudaEventSynchronize(event), "computing");
}

void Device::Poll(const std::function<cudaError_t()>& ask) const {
  using Clock = std::chrono::steady_clock;
  const auto since = Clock::now();
  auto looked = since;
  for (;;) {
    const cudaError_t status = ask();
    if (status != cudaErrorNotReady) return Check(status, "computing");
    const auto now = Clock::now();
    if (now - since > kSpin) std::this_thread::sleep_for(kNap);
    if (now - looked < kLook) continue;
    look_(std::chrono::duration<double>(now - since).count());
    looked = now;
  }
}

std::byte* Arena::Take(std::size_t bytes, std::size_t room) {
  room = room == 0 ? bytes : room;
  if (!committed_) {
    pieces_.push_back({room, bytes_, nullptr});
    bytes_ += (room + kAlign - 1) / kAlign * kAlign;
    return nullptr;
  }
  if (next_ >= pieces_.size() || bytes > pieces_[next_].room)
    throw std::logic_error("Arena: a walk takes other pieces than it measured");
  return pieces_[next_++].data;
}

void Arena::Commit(const Device& device, const std::string& what) {
#ifdef TEMPER_SIMT
  // Each piece alone, so that guards see a write that leaves it.
  for (Piece& piece : pieces_) {
    memory_.push_back(device.Allocate(piece.room, what));
    piece.data = memory_.back().get();
  }
#else
  memory_.push_back(device.Allocate(bytes_, what));
  for (Piece& piece : pieces_) piece.data = memory_[0].get() + piece.offset;
#endif
  committed_ = true;
  next_ = 0;
}

void Arena::Clear() {
  pieces_.clear();
  memory_.clear();
  next_ = bytes_ = 0;
  committed_ = false;
}

}  // namespace temper::engine::cuda
