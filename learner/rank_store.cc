#include "learner/rank_store.h"

#include <cstdlib>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "configs/error.h"

namespace temper::learner {

std::string FirstLine(const std::exception& error) {
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  const std::string text = of_torch ? of_torch->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

c10::intrusive_ptr<c10d::Store> ConnectStore(const RankPlace& place, double timeout_s, bool serve) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<std::uint16_t>(place.port);
  options.isServer = serve;
  options.waitWorkers = false;
  options.timeout = Milliseconds(timeout_s);
  const std::string where = place.address + ":" + std::to_string(place.port);
  try {
    auto store = c10::make_intrusive<c10d::TCPStore>(place.address, options);
    // torchrun keeps its store when it starts the ranks again: each start has keys of its own.
    const char* restarts = std::getenv("TORCHELASTIC_RESTART_COUNT");
    return c10::make_intrusive<c10d::PrefixStore>(
        "temper/" + std::string(restarts && place.agent_store ? restarts : "0"), store);
  } catch (const std::exception& error) {
    const std::string why = FirstLine(error);
    if (serve && why.find("EADDRINUSE") != std::string::npos) {
      throw MachineError("MASTER_PORT: " + where +
                         " is in use by another program; choose another port");
    }
    if (serve) throw MachineError(place.Name() + ": the store at " + where + ": " + why);
    throw MachineError(place.Name() + ": nobody serves the store at " + where +
                       " (rank 0 does): " + why);
  }
}

}  // namespace temper::learner
