#pragma once
// Bytes that processes of the same machine may read: nothing is left behind when their owner dies.
#include <cstddef>
#include <span>
#include <string>

namespace temper::wire {

/// A buffer in a file without a name (memfd_create). Pages are zero at first. Throws MachineError
/// where there is no memory.
class SharedBytes {
 public:
  SharedBytes() = default;
  ~SharedBytes();
  SharedBytes(const SharedBytes& other);
  SharedBytes& operator=(SharedBytes other) noexcept;
  SharedBytes(SharedBytes&& other) noexcept { swap(other); }
  void swap(SharedBytes& other) noexcept;

  /// What it held is gone unless the size stays.
  void resize(std::size_t size);
  void assign(std::span<const std::byte> bytes);
  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::byte* begin() { return data_; }
  std::byte* end() { return data_ + size_; }
  const std::byte* begin() const { return data_; }
  const std::byte* end() const { return data_ + size_; }
  std::byte& operator[](std::size_t i) { return data_[i]; }
  const std::byte& operator[](std::size_t i) const { return data_[i]; }

  /// Where others find it while this object lives: /proc/PID/fd/N. "": nowhere.
  std::string path() const;

 private:
  int fd_ = -1;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Another process's bytes, mapped for reading. They may change or be of anybody: copy, then check.
class SharedView {
 public:
  /// Empty unless PATH is what path() gives, and a file of exactly `size` bytes.
  SharedView(const std::string& path, std::size_t size);
  ~SharedView();
  SharedView(const SharedView&) = delete;
  const std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace temper::wire
