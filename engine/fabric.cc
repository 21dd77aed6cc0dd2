#include "engine/fabric.h"

#include <pthread.h>
#include <signal.h>

#include <chrono>
#include <stdexcept>
#include <utility>

namespace temper::engine {

void FabricThread::Send(const FabricGroup& group, std::span<const std::byte> bytes,
                        std::shared_ptr<const void> owner) {
  Begin([=, fabric = fabric_, owner = std::move(owner)](const std::atomic<bool>& stop) {
    fabric->Send(group, bytes, stop);
  });
}

void FabricThread::Receive(const FabricGroup& group, std::span<std::byte> bytes,
                           std::shared_ptr<const void> owner) {
  Begin([=, fabric = fabric_, owner = std::move(owner)](const std::atomic<bool>& stop) {
    fabric->Receive(group, bytes, stop);
  });
}

void FabricThread::Begin(std::function<void(const std::atomic<bool>&)> call) {
  if (busy()) throw std::logic_error("FabricThread: one call at a time");
  run_ = std::make_shared<Run>();
  // Signals belong to the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([run = run_, call = std::move(call)]() mutable {
    std::string problem;
    try {
      call(run->stop);
    } catch (const std::exception& error) {
      problem = error.what();
    }
    call = nullptr;  // what it held is free before anybody hears of the end
    const std::lock_guard lock(run->mutex);
    run->ended = std::move(problem);
    run->changed.notify_all();
  });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void FabricThread::Stop() {
  if (run_) run_->stop = true;
}

std::optional<std::string> FabricThread::Ended() {
  if (!run_) return std::nullopt;
  std::optional<std::string> ended;
  {
    const std::lock_guard lock(run_->mutex);
    ended = run_->ended;
  }
  if (!ended) return ended;
  thread_.join();
  run_.reset();
  return ended;
}

FabricThread::~FabricThread() {
  if (!run_) return;
  Stop();
  std::unique_lock lock(run_->mutex);
  const bool ended = run_->changed.wait_for(lock, std::chrono::duration<double>(kParting),
                                            [&] { return run_->ended.has_value(); });
  lock.unlock();
  if (ended) {
    thread_.join();
  } else {
    thread_.detach();
  }
}

}  // namespace temper::engine
