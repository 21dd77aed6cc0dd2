#pragma once
// The store in which the ranks of a run find one another: c10d's TCPStore, served by rank 0 or
// torchrun.
#include <chrono>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "learner/core/rank_place.h"

namespace temper::learner {

inline std::vector<std::uint8_t> Bytes(const std::string& text) {
  return {text.begin(), text.end()};
}

inline std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
}

/// Of Gloo and c10d: the first line, without the stack that follows it.
std::string FirstLine(const std::exception& error);

/// A connection of its own; `serve`: also the server. Throws MachineError: the port is in use,
/// nobody answers within `timeout_s`.
c10::intrusive_ptr<c10d::Store> ConnectStore(const RankPlace& place, double timeout_s, bool serve);

}  // namespace temper::learner
