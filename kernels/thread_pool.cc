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

/// Parts [begin, end) that nobody has claimed yet, of one thread's share of a job.
class Share {
 public:
  void Set(int begin, int end) { range_.store(Pack(begin, end), std::memory_order_relaxed); }
  /// The first part for its owner, the last one for others: each walks through neighbouring parts.
  int Claim(bool owner) {
    std::uint64_t range = range_.load(std::memory_order_relaxed);
    for (;;) {
      const int begin = static_cast<int>(range >> 32), end = static_cast<int>(range & 0xFFFFFFFFu);
      if (begin >= end) return -1;
      const std::uint64_t rest = owner ? Pack(begin + 1, end) : Pack(begin, end - 1);
      if (range_.compare_exchange_weak(range, rest, std::memory_order_relaxed))
        return owner ? begin : end - 1;
    }
  }

 private:
  static std::uint64_t Pack(int begin, int end) {
    return std::uint64_t(begin) << 32 | static_cast<std::uint32_t>(end);
  }
  alignas(64) std::atomic<std::uint64_t> range_{0};
};

}  // namespace

struct ThreadPool::State {
  alignas(64) std::atomic<std::uint64_t> gate{0};
  std::unique_ptr<Share[]> shares;  // one a thread, the caller's first
  int threads = 1;
  alignas(64) std::atomic<int> sleeping{0};
  std::atomic<bool> caller_sleeps{false};
  std::atomic<bool> stop{false};
  const std::function<void(int)>* job = nullptr;

  std::mutex mutex;
  std::condition_variable wake;  // workers: a job or the end
  std::condition_variable done;  // caller: workers started, or all outside
  int started = 0;
  std::exception_ptr error;
  std::vector<std::thread> workers;

  void RunPart(int i) {
    try {
      (*job)(i);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  }

  /// The thread's own share, then what the others have left.
  void Claim(int thread) {
    for (int t = 0; t < threads; ++t) {
      Share& share = shares[(thread + t) % threads];
      for (int i = 0; (i = share.Claim(t == 0)) >= 0;) RunPart(i);
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

  void Work(int thread) {
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
      Claim(thread);
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
  state_->threads = threads;
  state_->shares = std::make_unique<Share[]>(static_cast<std::size_t>(threads));
  try {
    for (int i = 1; i < threads; ++i)
      state_->workers.emplace_back([s = state_.get(), i] { s->Work(i); });
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
  const bool shared = parts > 1 && !s.workers.empty();
  if (!shared) {
    for (int i = 0; i < parts; ++i) s.RunPart(i);
  } else {
    for (std::int64_t t = 0; t < s.threads; ++t) {
      s.shares[static_cast<std::size_t>(t)].Set(static_cast<int>(parts * t / s.threads),
                                                static_cast<int>(parts * (t + 1) / s.threads));
    }
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
    s.Claim(0);
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
