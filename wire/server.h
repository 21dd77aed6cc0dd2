#pragma once
// The learner's ROUTER socket: it binds, and holds a bounded queue for each peer that reads slowly.
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "wire/endpoint.h"
#include "wire/message.h"
#include "wire/socket.h"

namespace temper::wire {

/// The learner's side.
class Server : public Socket {
 public:
  /// Binds. With `keys` (a learner's key file) every connection is encrypted, and only keys of its
  /// allow-list come in: of others no byte is handled. Throws UserError or MachineError (port in
  /// use) naming the endpoint.
  explicit Server(const std::string& bind, const std::string& keys = "");

  const std::string& endpoint() const { return endpoint_; }  // what peers connect to
  /// Sends, or queues while the peer's pipe is full. False: the peer's connection is gone, or it
  /// reads so slowly that its queue passed kMaxQueued; what was queued is dropped.
  bool Send(const std::string& peer, const Message& message);
  /// Tries the queues again; gives the peers found gone.
  std::vector<std::string> Flush();
  bool queued() const { return !queues_.empty(); }
  /// Lets what was sent travel for at most `ms` when the socket closes.
  void Linger(int ms);

  static constexpr std::size_t kMaxQueued = 1024;  // messages a peer

 private:
  void OnHandshake(Handshakes::Event event, std::int64_t now_us) override;

  BindEndpoint bind_;
  std::string endpoint_;
  std::map<std::string, std::deque<std::vector<Bytes>>> queues_;
};

}  // namespace temper::wire
