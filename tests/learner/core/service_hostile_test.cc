// Peers that break rules beside peers that keep them: refused with a reason, counted, and nobody
// else notices.
#include <zmq.h>

#include <map>

#include "configs/crc32c.h"
#include "tests/learner/core/service_fixture.h"

namespace temper::learner {
namespace {

/// A DEALER that sends what it is given and hears refusals.
class RawPeer {
 public:
  explicit RawPeer(const std::string& endpoint)
      : context_(zmq_ctx_new()), socket_(zmq_socket(context_, ZMQ_DEALER)) {
    const int linger = 0, timeout = 5000;
    zmq_setsockopt(socket_, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_setsockopt(socket_, ZMQ_RCVTIMEO, &timeout, sizeof(timeout));
    zmq_connect(socket_, endpoint.c_str());
  }
  ~RawPeer() {
    zmq_close(socket_);
    zmq_ctx_term(context_);
  }
  void Send(const std::vector<std::string>& frames) {
    for (std::size_t i = 0; i < frames.size(); ++i) {
      zmq_send(socket_, frames[i].data(), frames[i].size(),
               i + 1 < frames.size() ? ZMQ_SNDMORE : 0);
    }
  }
  void Send(const wire::Message& message) { Send(Frames(message)); }
  static std::vector<std::string> Frames(const wire::Message& message) {
    std::vector<std::string> frames;
    for (const wire::Bytes& frame : wire::Encode(message)) {
      frames.emplace_back(reinterpret_cast<const char*>(frame.view.data()), frame.view.size());
    }
    return frames;
  }
  /// The next refusal as "code: reason"; "" after 5 s without one.
  std::string Refusal() {
    for (;;) {
      std::vector<wire::Bytes> frames;
      for (bool more = true; more;) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, socket_, 0) < 0) {
          zmq_msg_close(&frame);
          return "";
        }
        frames.push_back(wire::Bytes::Copy(std::string_view(
            static_cast<const char*>(zmq_msg_data(&frame)), zmq_msg_size(&frame))));
        more = zmq_msg_more(&frame) != 0;
        zmq_msg_close(&frame);
      }
      const wire::Message message = wire::Decode(frames);
      if (message.kind != static_cast<std::uint16_t>(Kind::kRefuse)) continue;
      const auto refuse = wire::Refuse::Decode(message);
      return refuse.code + ": " + refuse.reason;
    }
  }

 private:
  void* context_;
  void* socket_;
};

/// The preamble's checksum made right after a change.
std::vector<std::string> Resealed(std::vector<std::string> frames) {
  std::uint32_t crc = configs::Crc32c(std::string_view(frames[0]).substr(0, 12));
  for (std::size_t i = 1; i < frames.size(); ++i) crc = configs::Crc32c(frames[i], crc);
  std::memcpy(frames[0].data() + 12, &crc, 4);
  return frames;
}

class HostileTest : public ServiceTest {
 protected:
  /// What each rule breaker sends, and what its refusal says.
  struct Attack {
    const char* name;
    std::vector<std::string> frames;
    const char* answer;
  };
  std::vector<Attack> Attacks() const {
    const auto hello = RawPeer::Frames(HelloOf("x", wire::Role::kActor).Encode());
    const auto changed = [&](std::size_t at, char to) {
      auto frames = hello;
      frames[0][at] = to;
      return frames;
    };
    wire::Hello other_run = HelloOf("x", wire::Role::kActor);
    other_run.run = "another";
    wire::Hello other_numerics = HelloOf("x", wire::Role::kActor);
    other_numerics.numerics = {"canon-9/fp32/cache-fp32"};
    wire::Message unknown;
    unknown.kind = 99;
    auto cut = hello;
    cut[1].resize(cut[1].size() / 2);
    auto many = hello;
    many.resize(300, "x");
    auto large = hello;
    large.push_back(std::string(17 << 20, 'x'));
    wire::Rollout stranger;
    stranger.finish = "stop";
    return {{"magic", changed(0, 'X'), "bad_message: wire"},
            {"version", Resealed(changed(4, 9)), "version 9"},
            {"checksum", changed(12, 1), "bad_message: wire"},
            {"truncated", Resealed(cut), "bad_message: wire"},
            {"one frame", {"rubbish"}, "bad_message: wire"},
            {"many frames", many, "more than 256 frames"},
            {"oversize", large, "a frame of 17825792 bytes; the limit is 16777216"},
            {"kind", RawPeer::Frames(unknown), "hello_first"},
            {"no hello", RawPeer::Frames(stranger.Encode()), "hello_first"},
            {"run", RawPeer::Frames(other_run.Encode()), "not_welcome: x belongs to run another"},
            {"numerics", RawPeer::Frames(other_numerics.Encode()), "canon-9/fp32/cache-fp32"}};
  }
};

TEST_F(HostileTest, WhoeverBreaksARuleIsToldWhichAndTheRunGoesOn) {
  testing::internal::CaptureStderr();
  std::map<std::string, std::uint64_t> refused;
  std::atomic<int> acked{0};
  {
    Service service(Options());
    FakePeer actor(service.endpoint(), HelloOf("a1", wire::Role::kActor), ActorReply(&acked));
    FakePeer worker(service.endpoint(), HelloOf("w1", wire::Role::kRewardWorker), ScorerReply());
    service.Publish(Weights(0));
    std::int64_t step = 0;
    for (const Attack& attack : Attacks()) {
      RawPeer peer(service.endpoint());
      peer.Send(attack.frames);
      const std::string refusal = peer.Refusal();
      EXPECT_NE(refusal.find(attack.answer), std::string::npos) << attack.name << ": " << refusal;
      EXPECT_EQ(service.NextBatch(++step).groups.size(), 4u) << attack.name;
      service.Publish(Weights(static_cast<std::uint32_t>(step)));
    }
    for (const auto& [reason, count] : service.TakeStats().refused) refused[reason] = count;
    for (int i = 0; i < 6000 && acked < step * 16; ++i) usleep(10'000);
    EXPECT_EQ(acked, step * 16);
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(refused["bad_message from an unknown peer"], 7u);
  EXPECT_EQ(refused["not_welcome"], 2u);
  EXPECT_NE(log.find("an unknown peer: wire"), log.npos) << log;
  EXPECT_NE(log.find("x belongs to run another, this is run test; refused"), log.npos) << log;
}

TEST_F(HostileTest, AFloodOfRubbishDelaysNobody) {
  testing::internal::CaptureStderr();
  std::atomic<int> acked{0};
  std::atomic<bool> stop{false};
  {
    Service service(Options());
    FakePeer actor(service.endpoint(), HelloOf("a1", wire::Role::kActor), ActorReply(&acked));
    FakePeer worker(service.endpoint(), HelloOf("w1", wire::Role::kRewardWorker), ScorerReply());
    std::thread flood([&] {
      RawPeer peer(service.endpoint());
      for (int i = 0; i < 10000 && !stop; ++i)
        peer.Send(std::vector<std::string>{"rubbish", "and more"});
    });
    service.Publish(Weights(0));
    const auto began = Clock::now();
    for (std::int64_t step = 1; step <= 20; ++step) {
      EXPECT_EQ(service.NextBatch(step).groups.size(), 4u);
      service.Publish(Weights(static_cast<std::uint32_t>(step)));
    }
    EXPECT_LT(Seconds(began), 60.0);
    for (int i = 0; i < 6000 && acked < 20 * 16; ++i) usleep(10'000);
    EXPECT_EQ(acked, 20 * 16);
    stop = true;
    flood.join();
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_LT(std::count(log.begin(), log.end(), '\n'), 30) << log;
}

}  // namespace
}  // namespace temper::learner
