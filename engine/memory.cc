#include "engine/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace temper::engine {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLargestRegion = std::size_t{32} << 20;

std::size_t RoundUp(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

/// `bytes` is a multiple of a huge page. Fresh pages are zero; a kernel without huge pages gives
/// small ones.
std::shared_ptr<std::byte> Map(std::size_t bytes) {
  // One huge page more, so that an aligned part is in it; the rest is given back.
  const std::size_t whole = bytes + kHugePage;
  void* mapped = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  auto* start = static_cast<std::byte*>(mapped);
  const std::size_t before =
      (kHugePage - reinterpret_cast<std::uintptr_t>(mapped) % kHugePage) % kHugePage;
  std::byte* data = start + before;
  if (before > 0) munmap(start, before);
  munmap(data + bytes, kHugePage - before);
  madvise(data, bytes, MADV_HUGEPAGE);
  return {data, [bytes](std::byte* p) { munmap(p, bytes); }};
}

}  // namespace

std::shared_ptr<std::byte> Arena::Take(std::size_t bytes) {
  const std::size_t padded = std::max<std::size_t>(RoundUp(bytes, 64), 64);
  if (used_ + padded > size_) {
    // Twice the last region, so that a small model stays small.
    size_ = RoundUp(std::max(padded, std::min(2 * size_, kLargestRegion)), kHugePage);
    region_ = Map(size_);
    used_ = 0;
  }
  std::shared_ptr<std::byte> slice(region_, region_.get() + used_);
  used_ += padded;
  return slice;
}

AlignedBytes::AlignedBytes(std::size_t bytes) : size_(bytes) {
  if (bytes >= kHugePage) {
    data_ = Map(RoundUp(bytes, kHugePage));
    return;
  }
  const std::size_t padded = std::max<std::size_t>(RoundUp(bytes, 64), 64);
  auto* data = static_cast<std::byte*>(std::aligned_alloc(64, padded));
  if (data == nullptr) throw std::bad_alloc();
  std::memset(data, 0, padded);
  data_ = {data, [](std::byte* p) { std::free(p); }};
}

}  // namespace temper::engine
