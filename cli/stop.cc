#include "cli/stop.h"

#include <signal.h>

namespace temper::cli {
namespace {

std::atomic<bool> stop{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // so that a handler may set it

extern "C" void SetStop(int) { stop.store(true); }

}  // namespace

const std::atomic<bool>* StopOnSignal() {
  struct sigaction action {};
  action.sa_handler = SetStop;
  action.sa_flags = SA_RESETHAND;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  return &stop;
}

}  // namespace temper::cli
