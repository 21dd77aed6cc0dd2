#pragma once
// The memory of one Lua state: laid out alike in every process, and back to a saved moment in
// microseconds.
#include <array>
#include <cstddef>
#include <string>

namespace temper::reward {

/// Blocks by size class inside one reserved range. The same calls give the same places in it in any
/// process, so an order by address is one order wherever the range lies.
class Arena {
 public:
  /// Reserves address space; pages become real when touched. Throws std::bad_alloc.
  explicit Arena(std::size_t bytes);
  Arena(const Arena&) = delete;
  ~Arena();

  /// 16-byte aligned; null when the range is used up. size > 0.
  void* Allocate(std::size_t size);
  /// `size` as it was asked for.
  void Free(void* block, std::size_t size);

  /// Keeps a copy of everything allocated so far.
  void Save();
  /// Puts it back, addresses and contents; later blocks are gone. Save must have been called.
  void Restore();

  /// The block a request of `size` bytes takes.
  static std::size_t BlockSize(std::size_t size);

 private:
  static constexpr std::size_t kSmall = 1024;  // up to here classes of 16 bytes
  static constexpr std::size_t kClasses = kSmall / 16 + 4 * 54;
  struct Free_ {
    Free_* next;
  };
  struct Marks {
    std::size_t top = 0;
    std::array<Free_*, kClasses> free{};
  };
  static std::size_t ClassOf(std::size_t size, std::size_t* block);

  char* base_ = nullptr;
  std::size_t bytes_, high_ = 0;  // high_: the end of touched memory
  Marks now_, saved_;
  std::string copy_;
};

}  // namespace temper::reward
