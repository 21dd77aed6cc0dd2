// The scheduler of fibers and the memory that faults.
#include "tests/simt/simt.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <set>

// Saves the callee's registers on one stack and takes them from another.
extern "C" void simt_switch(void** save, void* load);
asm(R"(
.text
.globl simt_switch
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch, .-simt_switch
)");

// Static __shared__ variables lie here (cuda_runtime.h).
extern "C" {
extern unsigned char __start_simt_shared[] __attribute__((weak));
extern unsigned char __stop_simt_shared[] __attribute__((weak));
}

namespace simt {

Thread* self = nullptr;
Index grid_size, block_size;
unsigned char* dynamic_shared = nullptr;

namespace {

constexpr std::size_t kStack = 128 * 1024;
constexpr int kMostThreads = 1024;

Order order = Order::kForward;
std::uint64_t order_seed = 1;

std::size_t PageSize() {
  static const std::size_t size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

std::set<const Memory*>& Memories() {
  static std::set<const Memory*> all;
  return all;
}

std::vector<int> Ordered(int n) {
  std::vector<int> numbers(static_cast<std::size_t>(n));
  std::iota(numbers.begin(), numbers.end(), 0);
  if (order == Order::kReverse) std::reverse(numbers.begin(), numbers.end());
  if (order == Order::kShuffled) {
    std::mt19937_64 random(order_seed);
    std::shuffle(numbers.begin(), numbers.end(), random);
  }
  return numbers;
}

Index Split(int number, Index size) {
  const unsigned n = static_cast<unsigned>(number);
  return {n % size.x, n / size.x % size.y, n / size.x / size.y};
}

std::string Name(const Thread& t) {
  return "thread " + std::to_string(t.number) + " of block " + std::to_string(t.block_index.x) +
         "," + std::to_string(t.block_index.y) + "," + std::to_string(t.block_index.z);
}

std::string Line(const std::source_location& where) {
  const std::string file = where.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

/// Threads of one launch; kernels are not reentrant here.
struct Machine {
  unsigned char* stacks = nullptr;
  void* stack_pointer = nullptr;  // the scheduler's, while a fiber runs
  const std::function<void()>* body = nullptr;
  std::vector<Thread> threads;
  std::string failure;
  bool released = false;  // a collective has let its lanes go on
  sigjmp_buf on_fault;
  const void* fault_address = nullptr;

  Machine() {
    void* map = mmap(nullptr, kStack * kMostThreads, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) throw std::runtime_error("no memory for the fibers' stacks");
    stacks = static_cast<unsigned char*>(map);
    // The lowest page of each stack stays closed: an overflow is a fault too.
    for (std::size_t i = 0; i < kMostThreads; ++i) mprotect(stacks + i * kStack, PageSize(), 0);
  }
};

Machine& TheMachine() {
  static Machine machine;
  return machine;
}

void OnFault(int, siginfo_t* info, void*) {
  Machine& m = TheMachine();
  m.fault_address = info->si_addr;
  siglongjmp(m.on_fault, 1);
}

/// Turns a touch of a closed page into a return from sigsetjmp while it lives.
class FaultHandler {
 public:
  FaultHandler() {
    struct sigaction action = {};
    action.sa_sigaction = OnFault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, &before_);
  }
  ~FaultHandler() { sigaction(SIGSEGV, &before_, nullptr); }
  FaultHandler(const FaultHandler&) = delete;
  FaultHandler& operator=(const FaultHandler&) = delete;

 private:
  struct sigaction before_;
};

void Yield() { simt_switch(&self->stack_pointer, TheMachine().stack_pointer); }

void Enter() {
  (*TheMachine().body)();
  self->state = Thread::State::kDone;
  Yield();
  std::abort();  // nobody resumes a thread that is done
}

void Prepare(Thread& t, int number, Index block) {
  t = Thread{};
  t.number = number;
  t.thread_index = Split(number, block_size);
  t.block_index = block;
  unsigned char* top = TheMachine().stacks + (static_cast<std::size_t>(number) + 1) * kStack;
  // simt_switch pops six registers and returns into Enter, whose stack is then as after a call.
  void** frame = reinterpret_cast<void**>(top) - 8;
  std::fill_n(frame, 8, nullptr);
  frame[6] = reinterpret_cast<void*>(&Enter);
  t.stack_pointer = frame;
}

void Resume(Thread& t) {
  self = &t;
  simt_switch(&TheMachine().stack_pointer, t.stack_pointer);
  self = nullptr;
}

std::string Stuck(const std::vector<Thread>& threads) {
  const Thread* waits = nullptr;
  const Thread* left = nullptr;
  const Thread* other = nullptr;
  for (const Thread& t : threads) {
    if (t.state == Thread::State::kDone) {
      left = &t;
    } else if (waits == nullptr) {
      waits = &t;
    } else if (t.where.line() != waits->where.line() || t.state != waits->state) {
      other = &t;
    }
  }
  std::string text = Name(*waits) + " waits at " + Line(waits->where) + " for ever: ";
  if (other != nullptr) return text + Name(*other) + " waits at " + Line(other->where);
  if (left != nullptr) return text + Name(*left) + " has left";
  return text + "the lanes of its mask never meet";
}

void ReleaseBarrier(std::vector<Thread>& threads) {
  for (const Thread& t : threads) {
    const bool same = t.where.line() == threads[0].where.line() &&
                      t.where.file_name() == threads[0].where.file_name();
    if (t.state != Thread::State::kBarrier || !same) return;
  }
  for (Thread& t : threads) t.state = Thread::State::kReady;
}

void RunBlock(Index block) {
  Machine& m = TheMachine();
  const int count = static_cast<int>(m.threads.size());
  for (int i = 0; i < count; ++i) Prepare(m.threads[static_cast<std::size_t>(i)], i, block);
  const std::vector<int> turn = Ordered(count);
  for (;;) {
    bool ran = false, done = true;
    for (int i : turn) {
      Thread& t = m.threads[static_cast<std::size_t>(i)];
      if (t.state == Thread::State::kReady) {
        m.released = false;
        Resume(t);
        ran = true;
        if (!m.failure.empty()) throw Fault(m.failure);
        // The first warps run ahead of all others as far as they may.
        if (order != Order::kShuffled && m.released) {
          done = false;
          break;
        }
      }
      done = done && t.state == Thread::State::kDone;
    }
    if (done) return;
    if (!ran) throw Fault(Stuck(m.threads));
    ReleaseBarrier(m.threads);
  }
}

void CheckMemories() {
  for (const Memory* memory : Memories()) {
    if (!memory->Intact()) throw Fault("a write before or past a buffer");
  }
}

}  // namespace

void SetOrder(Order to, std::uint64_t seed) {
  order = to;
  order_seed = seed;
}

void Run(Index grid, Index block, std::size_t shared_bytes, const std::function<void()>& body) {
  Machine& m = TheMachine();
  const std::size_t threads = std::size_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMostThreads || shared_bytes > 227 * 1024 || grid.x == 0 ||
      grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) {
    throw Fault("a launch of " + std::to_string(threads) + " threads a block, " +
                std::to_string(shared_bytes) + " bytes of shared memory: no device takes it");
  }
  const Memory shared(shared_bytes);
  grid_size = grid;
  block_size = block;
  dynamic_shared = static_cast<unsigned char*>(shared.data());
  m.body = &body;
  m.failure.clear();
  m.threads.assign(threads, Thread{});
  const FaultHandler handler;
  if (sigsetjmp(m.on_fault, 1) != 0) {
    const std::string who = self == nullptr ? "the host" : Name(*self);
    self = nullptr;
    throw Fault(who + " touched memory that is not its own");
  }
  for (int i : Ordered(static_cast<int>(grid.x * grid.y * grid.z))) {
    std::memset(shared.data(), kPoison, shared_bytes);
    std::fill(__start_simt_shared, __stop_simt_shared, kPoison);
    RunBlock(Split(i, grid));
    if (!shared.Intact()) throw Fault("a write before or past the shared memory");
  }
  CheckMemories();
}

void Fail(const std::string& what, std::source_location where) {
  TheMachine().failure = Name(*self) + " at " + Line(where) + ": " + what;
  Yield();
  std::abort();
}

void Barrier(std::source_location where) {
  self->state = Thread::State::kBarrier;
  self->where = where;
  Yield();
}

void Collective(Resolver resolver, std::uint32_t mask, void* data, std::source_location where) {
  std::vector<Thread>& threads = TheMachine().threads;
  const int first = self->number / kWarp * kWarp;
  if ((mask >> (self->number - first) & 1) == 0) Fail("its mask leaves out the caller", where);
  self->state = Thread::State::kWarp;
  self->resolver = resolver;
  self->mask = mask;
  self->data = data;
  self->where = where;
  void* lanes[kWarp] = {};
  for (int i = 0; i < kWarp; ++i) {
    if ((mask >> i & 1) == 0) continue;
    const std::size_t number = static_cast<std::size_t>(first + i);
    const bool there = number < threads.size() && threads[number].state == Thread::State::kWarp;
    if (!there) return Yield();
    const Thread& lane = threads[number];
    if (lane.resolver != resolver || lane.mask != mask || lane.where.line() != where.line()) {
      Fail("it meets lane " + std::to_string(i) + " at " + Line(lane.where), where);
    }
    lanes[i] = lane.data;
  }
  resolver(lanes, mask);
  TheMachine().released = true;
  for (int i = 0; i < kWarp; ++i) {
    if (lanes[i] != nullptr) {
      threads[static_cast<std::size_t>(first + i)].state = Thread::State::kReady;
    }
  }
}

Memory::Memory(std::size_t bytes) : bytes_(bytes) {
  const std::size_t page = PageSize(), data = (bytes + 15) / 16 * 16;
  mapped_ = page + (data + page - 1) / page * page + page;
  void* map = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) throw std::runtime_error("no memory for a buffer");
  map_ = static_cast<unsigned char*>(map);
  end_ = map_ + mapped_ - page;
  data_ = end_ - data;
  std::memset(map_, kPoison, static_cast<std::size_t>(end_ - map_));
  mprotect(end_, page, PROT_NONE);
  mprotect(map_, page, PROT_NONE);
  Memories().insert(this);
}

Memory::~Memory() {
  Memories().erase(this);
  munmap(map_, mapped_);
}

void Memory::Open(bool open) {
  if (open == open_) return;
  open_ = open;
  mprotect(map_ + PageSize(), mapped_ - 2 * PageSize(), open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

bool Memory::Intact() const {
  if (!open_) return true;
  static const std::vector<unsigned char> page(PageSize(), kPoison);
  return std::memcmp(map_ + PageSize(), page.data(),
                     static_cast<std::size_t>(data_ - map_) - PageSize()) == 0 &&
         std::memcmp(data_ + bytes_, page.data(),
                     static_cast<std::size_t>(end_ - data_) - bytes_) == 0;
}

}  // namespace simt
