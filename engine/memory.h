#pragma once
// Aligned memory, zero at first: on huge pages where it is large, since a walk through weights on 4
// KiB pages is bound by address translation.
#include <cstddef>
#include <memory>

namespace temper::engine {

/// Slices of large regions that ask for huge pages (madvise). A region goes back when the arena and
/// all its slices are gone.
class Arena {
 public:
  /// `bytes` zero bytes, aligned to 64.
  std::shared_ptr<std::byte> Take(std::size_t bytes);

 private:
  std::shared_ptr<std::byte> region_;
  std::size_t used_ = 0, size_ = 0;
};

/// 64-byte aligned memory, zero at first.
class AlignedBytes {
 public:
  AlignedBytes() = default;
  explicit AlignedBytes(std::size_t bytes);
  AlignedBytes(std::size_t bytes, Arena& arena) : data_(arena.Take(bytes)), size_(bytes) {}
  AlignedBytes(AlignedBytes&&) = default;
  AlignedBytes& operator=(AlignedBytes&&) = default;
  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  std::size_t size() const { return size_; }

 private:
  std::shared_ptr<std::byte> data_;
  std::size_t size_ = 0;
};

class AlignedFloats {
 public:
  AlignedFloats() = default;
  explicit AlignedFloats(std::size_t count) : bytes_(count * sizeof(float)), size_(count) {}
  float* data() { return reinterpret_cast<float*>(bytes_.data()); }
  const float* data() const { return reinterpret_cast<const float*>(bytes_.data()); }
  std::size_t size() const { return size_; }

 private:
  AlignedBytes bytes_;
  std::size_t size_ = 0;
};

}  // namespace temper::engine
