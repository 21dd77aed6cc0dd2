#include "wire/handshakes.h"

#include <zmq.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "configs/error.h"

namespace temper::wire {
namespace {

constexpr char kEndpoint[] = "inproc://handshakes";

}  // namespace

Handshakes::Handshakes(void* context, void* socket) : socket_(socket) {
  handle_ = zmq_socket(context, ZMQ_PAIR);
  // Unbounded: at a full pipe ZeroMQ's own thread would wait for us.
  const int none = 0;
  if (handle_ == nullptr || zmq_setsockopt(handle_, ZMQ_RCVHWM, &none, sizeof(none)) != 0 ||
      zmq_setsockopt(handle_, ZMQ_LINGER, &none, sizeof(none)) != 0 ||
      zmq_socket_monitor(socket, kEndpoint,
                         ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                             ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                             ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) != 0 ||
      zmq_connect(handle_, kEndpoint) != 0) {
    const std::string why = zmq_strerror(errno);
    zmq_socket_monitor(socket, nullptr, 0);
    if (handle_ != nullptr) zmq_close(handle_);
    throw MachineError("zmq_socket_monitor: " + why);
  }
}

Handshakes::~Handshakes() {
  zmq_socket_monitor(socket_, nullptr, 0);
  zmq_close(handle_);
}

bool Handshakes::Take(Event* event) {
  for (;;) {
    std::uint16_t code = 0;
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, handle_, ZMQ_DONTWAIT) < 0) {
      zmq_msg_close(&frame);
      if (errno == EINTR) continue;
      return false;
    }
    if (zmq_msg_size(&frame) >= sizeof(code)) {
      std::memcpy(&code, zmq_msg_data(&frame), sizeof(code));
    }
    while (zmq_msg_more(&frame) != 0 && zmq_msg_recv(&frame, handle_, 0) >= 0) {
    }
    zmq_msg_close(&frame);
    switch (code) {
      case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        *event = Event::kSucceeded;
        return true;
      case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        *event = Event::kUnauthorised;
        return true;
      case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        *event = Event::kMismatch;
        return true;
      case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        *event = Event::kBroken;
        return true;
      default:
        break;  // the monitor's own end
    }
  }
}

}  // namespace temper::wire
