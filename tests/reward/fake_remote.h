#pragma once
// A remote reward whose answers a test makes up.
#include <zmq.h>

#include <atomic>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "configs/json.h"
#include "wire/protocol.h"

namespace temper::reward {

using Frames = std::vector<std::string>;

/// A ROUTER that answers the frames of a request (without the peer's) with others.
class FakeServer {
 public:
  using Reply = std::function<Frames(const Frames&)>;
  FakeServer(const std::string& endpoint, Reply reply) : reply_(std::move(reply)) {
    context_ = zmq_ctx_new();
    socket_ = zmq_socket(context_, ZMQ_ROUTER);
    const int zero = 0;
    zmq_setsockopt(socket_, ZMQ_LINGER, &zero, sizeof zero);
    if (zmq_bind(socket_, endpoint.c_str()) != 0) throw std::runtime_error(endpoint);
    thread_ = std::thread([this] { Run(); });
  }
  ~FakeServer() {
    stop_ = true;
    thread_.join();
    zmq_ctx_term(context_);
  }
  int asked() const { return asked_; }
  /// From the next turn on there is no socket any more. A reply may call it.
  void Die() { stop_ = true; }

 private:
  Frames Receive() {
    Frames frames;
    int more = 1;
    while (more != 0) {
      zmq_msg_t msg;
      zmq_msg_init(&msg);
      if (zmq_msg_recv(&msg, socket_, 0) < 0) break;
      frames.emplace_back(static_cast<const char*>(zmq_msg_data(&msg)), zmq_msg_size(&msg));
      more = zmq_msg_more(&msg);
      zmq_msg_close(&msg);
    }
    return frames;
  }
  void Run() {
    while (!stop_) {
      zmq_pollitem_t item{socket_, 0, ZMQ_POLLIN, 0};
      if (zmq_poll(&item, 1, 10) <= 0) continue;
      Frames frames = Receive();
      ++asked_;
      const std::string peer = frames[0];
      frames.erase(frames.begin());
      Frames reply = reply_(frames);
      if (reply.empty()) continue;
      zmq_send(socket_, peer.data(), peer.size(), ZMQ_SNDMORE);
      for (std::size_t i = 0; i < reply.size(); ++i) {
        zmq_send(socket_, reply[i].data(), reply[i].size(), i + 1 < reply.size() ? ZMQ_SNDMORE : 0);
      }
    }
    zmq_close(socket_);
  }

  Reply reply_;
  void* context_ = nullptr;
  void* socket_ = nullptr;
  std::atomic<int> asked_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

inline Frames Sent(const wire::Message& message) {
  Frames frames;
  for (const wire::Bytes& bytes : wire::Encode(message)) {
    frames.emplace_back(reinterpret_cast<const char*>(bytes.view.data()), bytes.view.size());
  }
  return frames;
}

inline wire::Message Scores(const Frames& request, const Json& scores) {
  wire::Message answer;
  answer.kind = static_cast<std::uint16_t>(wire::Kind::kRemoteScores);
  answer.header["id"] = Json::parse(request.at(1)).at("id");
  answer.header["scores"] = scores;
  return answer;
}

/// Right if the answer stands in the completion.
inline Frames Honest(const Frames& request) {
  const Json group = Json::parse(request.at(2));
  Json scores = Json::array();
  for (const Json& sample : group.at("samples")) {
    const std::string completion = sample.at("completion");
    scores.push_back(completion.find(group.at("answer").get<std::string>()) != completion.npos);
    scores.back() = scores.back().get<bool>() ? 1 : 0;
  }
  return Sent(Scores(request, scores));
}

}  // namespace temper::reward
