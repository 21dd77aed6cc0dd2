#pragma once
// Memory that ends where the next page may not be touched: a read past the end is a crash.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace temper::kernels {

class Guarded {
 public:
  explicit Guarded(std::size_t bytes) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    size_ = (bytes + page - 1) / page * page + page;
    void* map = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) throw std::runtime_error("mmap failed");
    map_ = static_cast<char*>(map);
    if (mprotect(map_ + size_ - page, page, PROT_NONE) != 0)
      throw std::runtime_error("mprotect failed");
    data_ = map_ + size_ - page - bytes;
  }
  template <typename T>
  explicit Guarded(const std::vector<T>& copy) : Guarded(copy.size() * sizeof(T)) {
    if (!copy.empty()) std::memcpy(data_, copy.data(), copy.size() * sizeof(T));
  }
  ~Guarded() { munmap(map_, size_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  void* data() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }

 private:
  char* map_ = nullptr;
  char* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace temper::kernels
