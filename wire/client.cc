#include "wire/client.h"

#include <zmq.h>

#include <cerrno>

#include "configs/error.h"
#include "wire/endpoint.h"
#include "wire/keys.h"

namespace temper::wire {

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
