#pragma once
// A network in virtual time: each message is lost, repeated or delayed by its own die.
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "wire/message.h"

namespace temper::bench {

using Micros = std::int64_t;

/// Connections are names ("a1#3": the third of a1). What travels on a connection that is cut is
/// lost; the next one begins empty.
class LossyNetwork {
 public:
  struct Packet {
    std::string connection;
    bool to_learner = false;
    std::vector<wire::Bytes> frames;
  };
  LossyNetwork(double drop, double repeat, std::uint64_t seed)
      : drop_(drop), repeat_(repeat), random_(seed) {}

  void Send(const std::string& connection, bool to_learner, const wire::Message& message,
            Micros now) {
    ++messages;
    const std::vector<wire::Bytes> frames = wire::Encode(message);
    int copies = 1;
    if (Roll() < drop_) {
      ++drops;
      --copies;
    }
    if (Roll() < repeat_) {
      ++repeats;
      ++copies;
    }
    for (; copies > 0; --copies) {
      // 1 to 200 ms: later messages overtake earlier ones.
      const auto delay = static_cast<Micros>(1'000 + 200'000 * Roll() * Roll());
      packets_.emplace(std::pair(now + delay, next_++), Packet{connection, to_learner, frames});
    }
  }
  /// Everything that has arrived by `now`, in its order.
  std::vector<Packet> Arrived(Micros now) {
    std::vector<Packet> arrived;
    const auto end = packets_.lower_bound({now + 1, 0});
    for (auto it = packets_.begin(); it != end; ++it) arrived.push_back(std::move(it->second));
    packets_.erase(packets_.begin(), end);
    return arrived;
  }
  Micros next() const { return packets_.empty() ? INT64_MAX : packets_.begin()->first.first; }
  double Roll() { return std::uniform_real_distribution<double>()(random_); }

  std::uint64_t messages = 0, drops = 0, repeats = 0;

 private:
  const double drop_, repeat_;
  std::mt19937_64 random_;
  std::uint64_t next_ = 0;
  std::map<std::pair<Micros, std::uint64_t>, Packet> packets_;
};

}  // namespace temper::bench
