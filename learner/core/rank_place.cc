#include "learner/core/rank_place.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "configs/error.h"
#include "configs/json.h"

namespace temper::learner {

namespace {

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

/// `fallback` < 0: the variable is required.
int Number(const char* name, int low, int high, int fallback = -1) {
  const std::string text = Variable(name);
  if (text.empty()) {
    if (fallback >= 0) return fallback;
    throw UserError(std::string(name) + ": is not set, but WORLD_SIZE is " +
                    Variable("WORLD_SIZE") +
                    "; torchrun and temper set it, by hand every rank needs it");
  }
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < low || value > high) {
    throw UserError(std::string(name) + ": found " + configs::Quote(text) +
                    "; must be an integer from " + std::to_string(low) + " to " +
                    std::to_string(high));
  }
  return value;
}

constexpr int kMostRanks = 65536;

}  // namespace

std::string RankPlace::Name() const {
  return "rank " + std::to_string(rank) + " of " + std::to_string(size);
}

RankPlace ReadRankPlace() {
  RankPlace place;
  place.size = Number("WORLD_SIZE", 1, kMostRanks, 1);
  if (place.size == 1) return place;
  place.rank = Number("RANK", 0, place.size - 1);
  place.local_size = Number("LOCAL_WORLD_SIZE", 1, place.size, 1);
  place.local_rank = Number("LOCAL_RANK", 0, place.size - 1, place.rank);
  place.address = Variable("MASTER_ADDR");
  if (place.address.empty()) {
    throw UserError("MASTER_ADDR: is not set, but WORLD_SIZE is " + std::to_string(place.size) +
                    "; it names the machine of rank 0");
  }
  place.port = Number("MASTER_PORT", 1, 65535);
  place.agent_store = Variable("TORCHELASTIC_USE_AGENT_STORE") == "True";
  return place;
}

std::vector<std::pair<std::string, std::string>> EnvironmentOf(const RankPlace& place) {
  return {{"RANK", std::to_string(place.rank)},
          {"WORLD_SIZE", std::to_string(place.size)},
          {"LOCAL_RANK", std::to_string(place.local_rank)},
          {"LOCAL_WORLD_SIZE", std::to_string(place.local_size)},
          {"MASTER_ADDR", place.address},
          {"MASTER_PORT", std::to_string(place.port)},
          {"TORCHELASTIC_USE_AGENT_STORE", place.agent_store ? "True" : "False"}};
}

int FreePort() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof name;
  auto* address = reinterpret_cast<sockaddr*>(&name);
  const bool found = listener >= 0 && bind(listener, address, sizeof name) == 0 &&
                     getsockname(listener, address, &length) == 0;
  const int why = errno;
  if (listener >= 0) close(listener);
  if (!found) throw MachineError(std::string("a port for the ranks: ") + std::strerror(why));
  return ntohs(name.sin_port);
}

std::int64_t Shard::width(std::int64_t size) const {
  constexpr std::int64_t kLine = 16;
  const std::int64_t part = (size + ranks - 1) / ranks;
  return (part + kLine - 1) / kLine * kLine;
}

std::int64_t Shard::begin(std::int64_t size) const { return std::min(size, rank * width(size)); }

std::int64_t Shard::end(std::int64_t size) const {
  return std::min(size, (rank + 1) * width(size));
}

}  // namespace temper::learner
