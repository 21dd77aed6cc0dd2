#include "wire/shared_bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "configs/error.h"

namespace temper::wire {

SharedBytes::~SharedBytes() {
  if (data_ != nullptr) munmap(data_, size_);
  if (fd_ >= 0) close(fd_);
}

SharedBytes::SharedBytes(const SharedBytes& other) { assign(other); }

void SharedBytes::assign(std::span<const std::byte> bytes) {
  resize(bytes.size());
  if (size_ > 0) std::memcpy(data_, bytes.data(), size_);
}

SharedBytes& SharedBytes::operator=(SharedBytes other) noexcept {
  swap(other);
  return *this;
}

void SharedBytes::swap(SharedBytes& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
}

void SharedBytes::resize(std::size_t size) {
  if (size == size_) return;
  SharedBytes next;
  if (size > 0) {
    const auto fail = [&](const char* what) {
      throw MachineError("shared memory of " + std::to_string(size) + " bytes: " + what + ": " +
                         std::strerror(errno));
    };
    next.fd_ = memfd_create("temper-weights", MFD_CLOEXEC);
    if (next.fd_ < 0) fail("memfd_create");
    // Taken now: a page that is missing later would be a signal.
    const int error = posix_fallocate(next.fd_, 0, static_cast<off_t>(size));
    if (error != 0) {
      errno = error;
      fail("posix_fallocate");
    }
    void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, next.fd_, 0);
    if (data == MAP_FAILED) fail("mmap");
    next.data_ = static_cast<std::byte*>(data);
    next.size_ = size;
  }
  swap(next);
}

std::string SharedBytes::path() const {
  if (fd_ < 0) return "";
  return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd_);
}

SharedView::SharedView(const std::string& path, std::size_t size) {
  int process = 0, number = 0, end = 0;
  const bool of_path =
      std::sscanf(path.c_str(), "/proc/%9d/fd/%9d%n", &process, &number, &end) == 2;
  if (!of_path || path.size() != static_cast<std::size_t>(end)) return;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return;
  struct stat found {};
  // Of another size it is not what was meant: this process may see other processes than the owner.
  if (size > 0 && fstat(fd, &found) == 0 && S_ISREG(found.st_mode) &&
      static_cast<std::size_t>(found.st_size) == size) {
    void* data = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    if (data != MAP_FAILED) {
      data_ = static_cast<std::byte*>(data);
      size_ = size;
    }
  }
  close(fd);
}

SharedView::~SharedView() {
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace temper::wire
