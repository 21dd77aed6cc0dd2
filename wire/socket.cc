#include "wire/socket.h"

#include <zmq.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace temper::wire {
namespace {

constexpr std::size_t kMaxFrames = 256;        // of one message
constexpr std::size_t kShareBytes = 64 << 10;  // larger frames are sent without a copy

std::int64_t NowMicros() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// Keeps the bytes of a frame that ZeroMQ sends without a copy and gives up on a thread of its own.
/// The flag orders that behind Fill for those who cannot see into ZeroMQ's queues: TSan is one.
struct Loan {
  explicit Loan(std::shared_ptr<const void> bytes) : owner(std::move(bytes)) {
    given.store(true, std::memory_order_release);
  }
  std::shared_ptr<const void> owner;
  std::atomic<bool> given{false};
};

void Release(void*, void* hint) {
  auto* loan = static_cast<Loan*>(hint);
  if (loan->given.load(std::memory_order_acquire)) delete loan;
}

void Fill(zmq_msg_t* msg, const Bytes& bytes) {
  const std::size_t n = bytes.view.size();
  if (n >= kShareBytes && bytes.owner) {
    auto* loan = new Loan(bytes.owner);
    // ZeroMQ never writes through it.
    auto* data = const_cast<std::byte*>(bytes.view.data());
    if (zmq_msg_init_data(msg, data, n, Release, loan) != 0) {
      delete loan;
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

}  // namespace temper::wire
