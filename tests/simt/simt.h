#pragma once
// A grid of CUDA threads on the host: blocks in turn, threads as fibers, nothing happens by luck.
//
// What it models: barriers, warp collectives, shared memory, asynchronous copies (done at their
// wait, never before), tensor-core fragments. A thread runs until it must wait, so for each pair of
// threads that race one of two orders shows it: run a kernel under every Order and compare.
// What it refuses, by a Fault that names the line: a barrier or collective that some thread does
// not reach, one reached at different lines, a touch outside a Memory or the shared memory.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

namespace simt {

struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Order { kForward, kReverse, kShuffled };
/// The order of threads and of blocks from here on. In the first two the first warp that can go on
/// does, far ahead of the others; shuffled, all take turns between their waits.
void SetOrder(Order order, std::uint64_t seed = 1);

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

inline constexpr int kWarp = 32;
inline constexpr unsigned char kPoison = 0xFF;  // a NaN as float, -1 as int

/// What a collective does once all lanes of its mask are there: data[lane] is null for others.
using Resolver = void (*)(void* const* data, std::uint32_t mask);

struct Copy {
  void* to;
  const void* from;
  int bytes, valid;  // the rest is zeroed
};

struct Thread {
  Index thread_index, block_index;
  int number = 0;  // in the block
  enum class State { kReady, kBarrier, kWarp, kDone } state = State::kReady;
  // Of the wait.
  std::source_location where;
  Resolver resolver = nullptr;
  std::uint32_t mask = 0;
  void* data = nullptr;
  std::vector<Copy> open;                    // issued, not committed
  std::vector<std::vector<Copy>> committed;  // oldest first
  void* stack_pointer = nullptr;
};

extern Thread* self;
extern Index grid_size, block_size;
extern unsigned char* dynamic_shared;

/// Runs `body` once for each thread. Shared memory is poisoned for each block.
/// Throws Fault.
void Run(Index grid, Index block, std::size_t shared_bytes, const std::function<void()>& body);

void Barrier(std::source_location where);
/// Waits for the lanes of `mask`, the caller's among them; the last one resolves for all.
void Collective(Resolver resolver, std::uint32_t mask, void* data, std::source_location where);
[[noreturn]] void Fail(const std::string& what, std::source_location where);

/// Device memory of exactly `count` elements. The pages before and behind can't be touched, bytes
/// up to them hold a pattern that Run() checks. It begins poisoned, 16-byte aligned.
class Memory {
 public:
  explicit Memory(std::size_t bytes);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  void* data() const { return data_; }
  /// Closed, nobody can touch it.
  void Open(bool open);
  bool Intact() const;  // or closed

 private:
  bool open_ = true;
  unsigned char *map_ = nullptr, *data_ = nullptr, *end_ = nullptr;
  std::size_t bytes_ = 0, mapped_ = 0;
};

}  // namespace simt
