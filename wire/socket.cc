#include "wire/socket.h"

#include <zmq.h>

#include <cerrno>
#include <chrono>
#include <cstring>

namespace temper::wire {
namespace {

constexpr std::size_t kMaxFrames = 256;        // of one message
constexpr std::size_t kShareBytes = 64 << 10;  // larger frames are sent without a copy
constexpr char kZapDomain[] = "temper";

std::int64_t NowMicros() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void Release(void*, void* owner) { delete static_cast<std::shared_ptr<const void>*>(owner); }

void Fill(zmq_msg_t* msg, const Bytes& bytes) {
  const std::size_t n = bytes.view.size();
  if (n >= kShareBytes && bytes.owner) {
    auto* owner = new std::shared_ptr<const void>(bytes.owner);
    // ZeroMQ never writes through it.
    auto* data = const_cast<std::byte*>(bytes.view.data());
    if (zmq_msg_init_data(msg, data, n, Release, owner) != 0) {
      delete owner;
      throw MachineError(std::string("zmq_msg_init_data: ") + zmq_strerror(errno));
    }
    return;
  }
  if (zmq_msg_init_size(msg, n) != 0) {
    throw MachineError(std::string("zmq_msg_init_size: ") + zmq_strerror(errno));
  }
  if (n > 0) std::memcpy(zmq_msg_data(msg), bytes.view.data(), n);
}

/// A received frame, kept by whoever reads it.
struct Frame {
  Frame() { zmq_msg_init(&msg); }
  ~Frame() { zmq_msg_close(&msg); }
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;
  std::span<const std::byte> view() {
    return {static_cast<const std::byte*>(zmq_msg_data(&msg)), zmq_msg_size(&msg)};
  }
  zmq_msg_t msg;
};

}  // namespace

Socket::Socket(int type, bool ipv6) : has_identity_(type == ZMQ_ROUTER) {
  context_ = zmq_ctx_new();
  if (context_ == nullptr) throw MachineError(std::string("zmq_ctx_new: ") + zmq_strerror(errno));
  handle_ = zmq_socket(context_, type);
  if (handle_ == nullptr) {
    const std::string why = zmq_strerror(errno);
    zmq_ctx_term(context_);
    throw MachineError("zmq_socket: " + why);
  }
  // High-water marks count messages, and a weights chunk is 4 MiB: at most 256 MiB a peer and
  // direction.
  SetOption(ZMQ_SNDHWM, 64);
  SetOption(ZMQ_RCVHWM, 64);
  SetOption(ZMQ_HEARTBEAT_IVL, 2000);
  SetOption(ZMQ_HEARTBEAT_TIMEOUT, 6000);
  SetOption(ZMQ_HEARTBEAT_TTL, 6000);
  SetOption(ZMQ_HANDSHAKE_IVL, 5000);
  SetOption(ZMQ_LINGER, 0);
  SetOption(ZMQ_IPV6, ipv6 ? 1 : 0);
  // Somewhat over the rule, so that whoever breaks it is told; far over it ZeroMQ ends the
  // connection without a word.
  const std::int64_t max_bytes = 2 * kMaxFrameBytes;
  if (zmq_setsockopt(handle_, ZMQ_MAXMSGSIZE, &max_bytes, sizeof(max_bytes)) != 0)
    Fail("MAXMSGSIZE");
  handshakes_ = std::make_unique<Handshakes>(context_, handle_);
}

Socket::~Socket() {
  handshakes_.reset();
  gate_.reset();
  zmq_close(handle_);
  while (zmq_ctx_term(context_) != 0 && errno == EINTR) {
  }
}

void Socket::Fail(const std::string& what) const {
  throw MachineError(what + ": " + zmq_strerror(errno));
}

void Socket::SetOption(int option, int value) {
  if (zmq_setsockopt(handle_, option, &value, sizeof(value)) != 0) {
    Fail("zmq_setsockopt " + std::to_string(option));
  }
}

void Socket::SetText(int option, const std::string& value) {
  if (zmq_setsockopt(handle_, option, value.data(), value.size()) != 0) {
    Fail("zmq_setsockopt " + std::to_string(option));
  }
}

void Socket::Attend() {
  const std::int64_t now = NowMicros();
  if (gate_) gate_->Answer(&refusals_, now);
  Handshakes::Event event;
  while (handshakes_->Take(&event)) OnHandshake(event, now);
  OnTime(now);
}

bool Socket::Wait(std::int64_t timeout_us, int fd, bool or_writable) {
  zmq_pollitem_t items[4] = {};
  int count = 0;
  const auto watch = [&](void* socket, int file, int events) {
    items[count].socket = socket;
    items[count].fd = file;
    items[count++].events = static_cast<short>(events);
  };
  watch(handle_, 0, ZMQ_POLLIN | (or_writable ? ZMQ_POLLOUT : 0));
  watch(handshakes_->handle(), 0, ZMQ_POLLIN);
  if (gate_) watch(gate_->handle(), 0, ZMQ_POLLIN);
  if (fd >= 0) watch(nullptr, fd, ZMQ_POLLIN);
  // zmq_poll counts milliseconds: round up, or a deadline of half a millisecond becomes a busy
  // loop.
  const long timeout_ms = timeout_us <= 0 ? 0 : static_cast<long>((timeout_us + 999) / 1000);
  const int n = zmq_poll(items, count, timeout_ms);
  if (n < 0 && errno != EINTR) Fail("zmq_poll");
  Attend();
  return n > 0;
}

bool Socket::Receive(Incoming* incoming) {
  *incoming = {};
  std::vector<Bytes> frames;
  bool too_many = false, identity = has_identity_, first = true;
  std::size_t too_large = 0;
  for (;;) {
    auto frame = std::make_shared<Frame>();
    if (zmq_msg_recv(&frame->msg, handle_, ZMQ_DONTWAIT) < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN && first) return false;
      Fail("zmq_msg_recv");
    }
    first = false;
    const bool more = zmq_msg_more(&frame->msg) != 0;
    const auto view = frame->view();
    if (identity) {
      incoming->peer.assign(reinterpret_cast<const char*>(view.data()), view.size());
      identity = false;
    } else if (view.size() > kMaxFrameBytes) {
      too_large = view.size();
    } else if (frames.size() < kMaxFrames) {
      frames.push_back({view, std::move(frame)});
    } else {
      too_many = true;
    }
    if (!more) break;
  }
  if (too_many) {
    incoming->error = "wire message: more than " + std::to_string(kMaxFrames) + " frames";
    return true;
  }
  if (too_large > 0) {
    incoming->error = "wire message: a frame of " + std::to_string(too_large) +
                      " bytes; the limit is " + std::to_string(kMaxFrameBytes);
    return true;
  }
  try {
    incoming->message = Decode(frames);
  } catch (const ProtocolError& error) {
    incoming->error = error.what();
  }
  return true;
}

Socket::Sent Socket::TrySend(const std::string& peer, const std::vector<Bytes>& frames) {
  const std::size_t lead = has_identity_ ? 1 : 0;
  const std::size_t total = frames.size() + lead;
  for (std::size_t i = 0; i < total;) {
    zmq_msg_t msg;
    if (i < lead) {
      Fill(&msg, {std::as_bytes(std::span(peer.data(), peer.size())), nullptr});
    } else {
      Fill(&msg, frames[i - lead]);
    }
    const int flags = ZMQ_DONTWAIT | (i + 1 < total ? ZMQ_SNDMORE : 0);
    if (zmq_msg_send(&msg, handle_, flags) >= 0) {
      ++i;
      continue;
    }
    const int error = errno;
    zmq_msg_close(&msg);
    if (error == EINTR) continue;
    // In the middle of a message EAGAIN means that the pipe died and ZeroMQ rolled the message
    // back.
    if (error == EAGAIN) return Sent::kFull;
    if (error == EHOSTUNREACH) return Sent::kGone;
    errno = error;
    Fail("zmq_msg_send");
  }
  return Sent::kDone;
}

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

Client::Client(const std::string& endpoint, const std::string& keys)
    : Socket(ZMQ_DEALER, endpoint.find('[') != std::string::npos),
      endpoint_(endpoint),
      keys_path_(keys) {
  if (!keys.empty()) {
    const Keys own = ReadKeys(keys);
    public_key_ = own.public_key;
    SetText(ZMQ_CURVE_SERVERKEY, own.learner);
    SetText(ZMQ_CURVE_PUBLICKEY, own.public_key);
    SetText(ZMQ_CURVE_SECRETKEY, own.secret_key);
  }
  // Not ZMQ_IMMEDIATE: with it a lost connection takes along what was received but not read yet, a
  // goodbye for instance.
  SetOption(ZMQ_RECONNECT_IVL, 20);
  SetOption(ZMQ_RECONNECT_IVL_MAX, 1000);
  if (zmq_connect(handle_, CheckConnect(endpoint, keys).c_str()) != 0) {
    throw MachineError(endpoint + ": cannot connect: " + zmq_strerror(errno));
  }
}

bool Client::Send(const Message& message) {
  if (queue_.size() >= kMaxQueued) return false;
  queue_.push_back(Encode(message));
  Flush();
  return true;
}

void Client::Flush() {
  while (!queue_.empty() && TrySend("", queue_.front()) == Sent::kDone) queue_.pop_front();
}

void Client::Linger(int ms) { SetOption(ZMQ_LINGER, ms); }

void Client::OnHandshake(Handshakes::Event event, std::int64_t now_us) {
  using Event = Handshakes::Event;
  if (event == Event::kSucceeded) {
    failing_since_ = 0;
    known_ = true;
    return;
  }
  if (event == Event::kUnauthorised) {
    refused_ = endpoint_ + ": the learner's allow-list has no key " + public_key_ + " (" +
               keys_path_ + "); temper keys new on its machine makes one that is listed";
    return refusals_.Add("unlisted_key", refused_, now_us);
  }
  const std::string why = endpoint_ + ": no handshake with the learner: " +
                          (keys_path_.empty() ? "it needs keys (--keys FILE), or it is no Temper"
                                              : "it has another key than the one in " + keys_path_ +
                                                    ", uses none, or is no Temper");
  // The learner it knows is stopped, busy or ending.
  if (known_ && event == Event::kBroken) return;
  refusals_.Add("handshake", why, now_us);
  if (failing_since_ == 0) {
    failing_since_ = now_us;
    failures_ = 0;
  }
  ++failures_;
  failure_ = why;
  // ZeroMQ does not try again after a mismatch.
  if (event == Event::kMismatch) refused_ = why;
}

void Client::OnTime(std::int64_t now_us) {
  if (failing_since_ == 0 || now_us - failing_since_ < kHandshakeLimit) return;
  // Whoever has another key ends each try at once; who is stopped lets each run into its deadline.
  if (failures_ >= kHandshakeFailures) refused_ = failure_;
  failing_since_ = 0;
}

}  // namespace temper::wire
