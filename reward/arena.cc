#include "reward/arena.h"

#include <sys/mman.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <new>

namespace temper::reward {
namespace {

// Above what a program, its heap and its libraries use, and inside the memory that AddressSanitizer
// leaves to programs.
constexpr std::uintptr_t kPlace = 0x200000000000;
// Touched memory beyond the saved part that is worth a system call to give back.
constexpr std::size_t kWorthReturning = std::size_t{4} << 20;

}  // namespace

Arena::Arena(std::size_t bytes) : bytes_(bytes) {
  void* const got = mmap(reinterpret_cast<void*>(kPlace), bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (got == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<char*>(got);
}

Arena::~Arena() { munmap(base_, bytes_); }

std::size_t Arena::ClassOf(std::size_t size, std::size_t* block) {
  if (size <= kSmall) {
    const std::size_t steps = (size + 15) / 16;
    *block = steps * 16;
    return steps - 1;
  }
  // Four classes between two powers of two.
  const int log = std::bit_width(size - 1) - 1;  // 2^log < size <= 2^(log + 1)
  const std::size_t quarter = std::size_t{1} << (log - 2);
  const std::size_t step = (size - 1 - (std::size_t{1} << log)) / quarter;
  *block = (std::size_t{1} << log) + (step + 1) * quarter;
  return kSmall / 16 + static_cast<std::size_t>(log - 10) * 4 + step;
}

std::size_t Arena::BlockSize(std::size_t size) {
  std::size_t block = 0;
  ClassOf(size, &block);
  return block;
}

void* Arena::Allocate(std::size_t size) {
  if (size > bytes_) return nullptr;
  std::size_t block = 0;
  Free_*& list = now_.free[ClassOf(size, &block)];
  if (list != nullptr) {
    Free_* const taken = list;
    list = taken->next;
    return taken;
  }
  if (block > bytes_ - now_.top) return nullptr;
  char* const taken = base_ + now_.top;
  now_.top += block;
  if (now_.top > high_) high_ = now_.top;
  return taken;
}

void Arena::Free(void* block, std::size_t size) {
  std::size_t unused = 0;
  Free_*& list = now_.free[ClassOf(size, &unused)];
  auto* const given = static_cast<Free_*>(block);
  given->next = list;
  list = given;
}

void Arena::Save() {
  copy_.assign(base_, now_.top);
  saved_ = now_;
}

void Arena::Restore() {
  std::memcpy(base_, copy_.data(), copy_.size());
  now_ = saved_;
  if (high_ - now_.top < kWorthReturning) return;
  const std::size_t page = 4096, begin = (now_.top + page - 1) / page * page;
  madvise(base_ + begin, bytes_ - begin, MADV_DONTNEED);
  high_ = begin;
}

}  // namespace temper::reward
