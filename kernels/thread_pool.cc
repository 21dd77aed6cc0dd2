#include "kernels/thread_pool.h"

#include <immintrin.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cpu.h"

namespace temper::kernels {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kSpin = std::chrono::microseconds(15);

// gate = generation << 17 | open << 16 | workers inside. A worker enters only while the gate is
// open, and the caller changes the job only when it is closed and nobody is inside: a worker that
// wakes late finds the gate closed and never delays the caller.
constexpr std::uint64_t kInside = 0xFFFFu;
constexpr std::uint64_t kOpen = 1u << 16;
constexpr std::uint64_t kGeneration = 1u << 17;

template <typename Done>
bool SpinUntil(const Done& done) {
  const auto end = Clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      _mm_pause();
    }
  } while (Clock::now() < end);
  return done();
}

}  // namespace

struct ThreadPool::State {
  alignas(64) std::atomic<std::uint64_t> gate{0};
  alignas(64) std::atomic<int> next{0};
  alignas(64) std::atomic<int> sleeping{0};
  std::atomic<bool> caller_sleeps{false};
  std::atomic<bool> stop{false};
  const std::function<void(int)>* job = nullptr;
  int parts = 0;

  std::mutex mutex;
  std::condition_variable wake;  // workers: a job or the end
  std::condition_variable done;  // caller: workers started, or all outside
  int started = 0;
  std::exception_ptr error;
  std::vector<std::thread> workers;

  void Claim() {
    for (;;) {
      const int i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= parts) return;
      try {
        (*job)(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
      }
    }
  }

  bool News(std::uint64_t seen) const {
    const std::uint64_t g = gate.load(std::memory_order_seq_cst);
    return ((g & kOpen) != 0 && g / kGeneration != seen) || stop.load(std::memory_order_seq_cst);
  }

  bool Enter(std::uint64_t& seen) {
    std::uint64_t g = gate.load(std::memory_order_acquire);
    while ((g & kOpen) != 0 && g / kGeneration != seen) {
      if (gate.compare_exchange_weak(g, g + 1, std::memory_order_acq_rel)) {
        seen = g / kGeneration;
        return true;
      }
    }
    return false;
  }

  void Leave() {
    gate.fetch_sub(1, std::memory_order_seq_cst);
    if (caller_sleeps.load(std::memory_order_seq_cst)) {
      { const std::lock_guard lock(mutex); }
      done.notify_all();
    }
  }

  void WaitForNews(std::uint64_t seen) {
    if (SpinUntil([&] { return News(seen); })) return;
    std::unique_lock lock(mutex);
    sleeping.fetch_add(1, std::memory_order_seq_cst);
    wake.wait(lock, [&] { return News(seen); });
    sleeping.fetch_sub(1, std::memory_order_seq_cst);
  }

  void Work() {
    {
      const std::lock_guard lock(mutex);
      try {
        CheckFloatingPointMode();
      } catch (...) {
        error = std::current_exception();
      }
      ++started;
    }
    done.notify_all();
    std::uint64_t seen = 0;
    for (;;) {
      WaitForNews(seen);
      if (stop.load(std::memory_order_seq_cst)) return;
      if (!Enter(seen)) continue;
      Claim();
      Leave();
    }
  }

  void WaitUntilOutside() {
    const auto outside = [&] { return (gate.load(std::memory_order_seq_cst) & kInside) == 0; };
    if (SpinUntil(outside)) return;
    std::unique_lock lock(mutex);
    caller_sleeps.store(true, std::memory_order_seq_cst);
    done.wait(lock, outside);
    caller_sleeps.store(false, std::memory_order_seq_cst);
  }

  void Stop() {
    {
      const std::lock_guard lock(mutex);
      stop.store(true, std::memory_order_seq_cst);
    }
    wake.notify_all();
    for (std::thread& worker : workers) worker.join();
    workers.clear();
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  if (threads < 1 || threads > 4096) {
    throw std::invalid_argument("ThreadPool: " + std::to_string(threads) +
                                " threads; the rule is 1 to 4096");
  }
  CheckFloatingPointMode();
  try {
    for (int i = 1; i < threads; ++i)
      state_->workers.emplace_back([s = state_.get()] { s->Work(); });
    std::unique_lock lock(state_->mutex);
    state_->done.wait(lock, [&] { return state_->started == threads - 1; });
    if (state_->error) std::rethrow_exception(state_->error);
  } catch (...) {
    state_->Stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { state_->Stop(); }

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::Run(int parts, const std::function<void(int)>& part) {
  CheckFloatingPointMode();
  if (parts <= 0) return;
  State& s = *state_;
  s.job = &part;
  s.parts = parts;
  s.next.store(0, std::memory_order_relaxed);
  const bool shared = parts > 1 && !s.workers.empty();
  if (shared) {
    const std::uint64_t old = s.gate.load(std::memory_order_relaxed);
    s.gate.store((old / kGeneration + 1) * kGeneration + kOpen, std::memory_order_seq_cst);
    if (s.sleeping.load(std::memory_order_seq_cst) > 0) {
      { const std::lock_guard lock(s.mutex); }
      if (parts == 2) {
        s.wake.notify_one();
      } else {
        s.wake.notify_all();
      }
    }
  }
  s.Claim();
  if (shared) {
    s.gate.fetch_and(~kOpen, std::memory_order_seq_cst);
    s.WaitUntilOutside();
  }
  if (s.error) {
    std::exception_ptr error;
    std::swap(error, s.error);
    std::rethrow_exception(error);
  }
}

}  // namespace temper::kernels
