#pragma once
// The ranks of a run as threads of one test: each with a communicator of its own, over real
// sockets.
#include <exception>
#include <thread>
#include <vector>

#include "learner/communicator.h"

namespace temper::learner {

/// Runs `body` on each of `count` ranks; rethrows what the first of them threw. `lost`: the body
/// loses a rank, so that there is no common end.
template <class Body>
void RunRanks(int count, Body body, double timeout_s = 30, bool lost = false) {
  const int port = FreePort();
  std::vector<std::thread> threads;
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(count));
  for (int r = 0; r < count; ++r) {
    threads.emplace_back([&, r] {
      try {
        Communicator ranks({r, count, r, count, "127.0.0.1", port, false}, "cpu", timeout_s);
        body(ranks);
        if (!lost) ranks.Finish();
      } catch (...) {
        errors[std::size_t(r)] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace temper::learner
