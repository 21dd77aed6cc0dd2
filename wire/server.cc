#include "wire/server.h"

#include <zmq.h>

#include <cerrno>
#include <iterator>

#include "configs/error.h"
#include "wire/keys.h"

namespace temper::wire {
namespace {

constexpr char kZapDomain[] = "temper";

}  // namespace

Server::Server(const std::string& bind, const std::string& keys)
    : Socket(ZMQ_ROUTER, bind.find('[') != std::string::npos), bind_(bind, keys) {
  SetOption(ZMQ_ROUTER_MANDATORY, 1);
  if (!keys.empty()) {
    Keys own = ReadKeys(keys);
    if (!own.is_learner) {
      throw UserError(keys + ": a peer's file; a learner needs the one with the allow-list");
    }
    SetOption(ZMQ_CURVE_SERVER, 1);
    SetText(ZMQ_CURVE_SECRETKEY, own.secret_key);
    SetText(ZMQ_ZAP_DOMAIN, kZapDomain);
    gate_ = std::make_unique<Gate>(context_, std::move(own));
  }
  if (zmq_bind(handle_, bind_.address().c_str()) != 0) {
    throw MachineError(bind + ": cannot bind: " + zmq_strerror(errno) +
                       (errno == EADDRINUSE ? "; end the other process or take another port" : ""));
  }
  char name[1024];
  std::size_t size = sizeof(name);
  if (zmq_getsockopt(handle_, ZMQ_LAST_ENDPOINT, name, &size) != 0) Fail("LAST_ENDPOINT");
  endpoint_ = name;
}

bool Server::Send(const std::string& peer, const Message& message) {
  std::vector<Bytes> frames = Encode(message);
  const auto queue = queues_.find(peer);
  if (queue == queues_.end()) {
    const Sent sent = TrySend(peer, frames);
    if (sent == Sent::kFull) queues_[peer].push_back(std::move(frames));
    return sent != Sent::kGone;
  }
  if (queue->second.size() >= kMaxQueued) {
    queues_.erase(queue);
    return false;
  }
  queue->second.push_back(std::move(frames));
  return true;
}

std::vector<std::string> Server::Flush() {
  std::vector<std::string> gone;
  for (auto it = queues_.begin(); it != queues_.end();) {
    Sent sent = Sent::kDone;
    auto& queue = it->second;
    while (!queue.empty() && (sent = TrySend(it->first, queue.front())) == Sent::kDone) {
      queue.pop_front();
    }
    if (sent == Sent::kGone) gone.push_back(it->first);
    it = sent == Sent::kFull ? std::next(it) : queues_.erase(it);
  }
  return gone;
}

void Server::Linger(int ms) { SetOption(ZMQ_LINGER, ms); }

void Server::OnHandshake(Handshakes::Event event, std::int64_t now_us) {
  if (event == Handshakes::Event::kMismatch) {
    refusals_.Add("handshake",
                  std::string("a peer was refused before it said anything: it ") +
                      (gate_ ? "has no key, another learner's key, or is no Temper"
                             : "uses keys, which this run does not, or is no Temper"),
                  now_us);
  } else if (event == Handshakes::Event::kBroken) {
    refusals_.Add("broken_handshake", "a connection ended before its handshake was over", now_us);
  }
}

}  // namespace temper::wire
