#include "wire/socket.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include <chrono>
#include <functional>

#include "tests/error_of.h"
#include "wire/client.h"
#include "wire/protocol.h"
#include "wire/server.h"

namespace temper::wire {
namespace {

class SocketTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = "/tmp/temper-socket-XXXXXX";
    ASSERT_NE(mkdtemp(folder_.data()), nullptr);
  }
  void TearDown() override {
    unlink((folder_ + "/wire").c_str());
    rmdir(folder_.c_str());
  }
  std::string Ipc() const { return "ipc://" + folder_ + "/wire"; }

  /// Pumps until `done`, or a minute: longer than any machine under load needs.
  static bool Until(Socket& a, const std::function<bool()>& done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!done()) {
      if (std::chrono::steady_clock::now() > end) return false;
      a.Wait(1000);
    }
    return true;
  }

  std::string folder_;
};

TEST_F(SocketTest, MessagesTravelBothWays) {
  for (const std::string& bind : {Ipc(), std::string("tcp://127.0.0.1:*")}) {
    Server server(bind);
    Client client(server.endpoint());
    Incoming in;
    client.Send(Heartbeat().Encode());
    ASSERT_TRUE(Until(server, [&] {
      client.Flush();
      return server.Receive(&in);
    }));
    EXPECT_EQ(in.error, "");
    EXPECT_EQ(in.message.kind, static_cast<std::uint16_t>(Kind::kHeartbeat));
    const std::string blob(4 << 20, 'x');
    ASSERT_TRUE(server.Send(in.peer, WeightsChunk{1, 0, Bytes::Copy(blob)}.Encode()));
    ASSERT_TRUE(Until(client, [&] { return client.Receive(&in); }));
    EXPECT_EQ(WeightsChunk::Decode(in.message).data.view.size(), blob.size());
  }
}

TEST_F(SocketTest, FramesThatAreNoMessageAreReportedAndServingGoesOn) {
  Server server(Ipc());
  void* context = zmq_ctx_new();
  void* raw = zmq_socket(context, ZMQ_DEALER);
  const int linger = 0;
  zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof(linger));
  ASSERT_EQ(zmq_connect(raw, server.endpoint().c_str()), 0);
  zmq_send(raw, "rubbish", 7, 0);
  for (int i = 0; i < 300; ++i) zmq_send(raw, "", 0, i < 299 ? ZMQ_SNDMORE : 0);
  Incoming in;
  ASSERT_TRUE(Until(server, [&] { return server.Receive(&in); }));
  EXPECT_NE(in.error, "");
  ASSERT_TRUE(Until(server, [&] { return server.Receive(&in); }));
  EXPECT_EQ(in.error, "wire message: more than 256 frames");
  const std::vector<Bytes> good = Encode(Heartbeat().Encode());
  zmq_send(raw, good[0].view.data(), good[0].view.size(), ZMQ_SNDMORE);
  zmq_send(raw, good[1].view.data(), good[1].view.size(), 0);
  ASSERT_TRUE(Until(server, [&] { return server.Receive(&in); }));
  EXPECT_EQ(in.error, "");
  zmq_close(raw);
  zmq_ctx_term(context);
}

TEST_F(SocketTest, APeerThatDoesNotReadLosesNothing) {
  Server server(Ipc());
  Client client(server.endpoint());
  Incoming in;
  client.Send(Heartbeat().Encode());
  ASSERT_TRUE(Until(server, [&] {
    client.Flush();
    return server.Receive(&in);
  }));
  const std::string peer = in.peer;
  constexpr int kMessages = 900;
  // Far more than both high-water marks and the kernel's buffer hold.
  const Bytes blob = Bytes::Copy(std::string(100 << 10, 'x'));
  for (int i = 0; i < kMessages; ++i) {
    ASSERT_TRUE(server.Send(peer, WeightsChunk{1, static_cast<std::uint64_t>(i), blob}.Encode()));
  }
  EXPECT_TRUE(server.queued());
  std::uint64_t got = 0;
  ASSERT_TRUE(Until(client, [&] {
    while (client.Receive(&in)) {
      EXPECT_EQ(WeightsChunk::Decode(in.message).offset, got);
      ++got;
    }
    EXPECT_TRUE(server.Flush().empty());
    return got == kMessages;
  }));
  EXPECT_FALSE(server.queued());
}

TEST_F(SocketTest, APeerThatReadsNothingForEverIsGivenUp) {
  Server server(Ipc());
  Client client(server.endpoint());
  Incoming in;
  client.Send(Heartbeat().Encode());
  ASSERT_TRUE(Until(server, [&] {
    client.Flush();
    return server.Receive(&in);
  }));
  const Bytes blob = Bytes::Copy(std::string(100 << 10, 'x'));
  std::size_t sent = 0;
  while (sent < 3000 && server.Send(in.peer, WeightsChunk{1, 0, blob}.Encode())) ++sent;
  EXPECT_GE(sent, Server::kMaxQueued);
  EXPECT_LT(sent, 3000u);
}

TEST_F(SocketTest, AGonePeerIsNoticedAtTheNextSend) {
  Server server(Ipc());
  Incoming in;
  {
    Client client(server.endpoint());
    client.Send(Heartbeat().Encode());
    ASSERT_TRUE(Until(server, [&] {
      client.Flush();
      return server.Receive(&in);
    }));
  }
  EXPECT_TRUE(Until(server, [&] { return !server.Send(in.peer, Heartbeat().Encode()); }));
}

TEST_F(SocketTest, AClientFindsALearnerThatComesBack) {
  auto server = std::make_unique<Server>(Ipc());
  Client client(server->endpoint());
  Incoming in;
  client.Send(Heartbeat().Encode());
  ASSERT_TRUE(Until(*server, [&] {
    client.Flush();
    return server->Receive(&in);
  }));
  server.reset();
  server = std::make_unique<Server>(Ipc());
  ASSERT_TRUE(Until(*server, [&] {
    client.Send(Heartbeat().Encode());
    return server->Receive(&in);
  }));
}

TEST_F(SocketTest, AnEndpointInUseIsAnErrorOfTheMachine) {
  Server first("tcp://127.0.0.1:*");
  const std::string error = ErrorOf<MachineError>([&] { Server second(first.endpoint()); });
  EXPECT_NE(error.find(first.endpoint()), std::string::npos) << error;
  EXPECT_NE(error.find("in use"), std::string::npos) << error;
  Server ipc(Ipc());
  EXPECT_NE(ErrorOf<MachineError>([&] { Server second(Ipc()); }).find("in use"), std::string::npos);
}

TEST_F(SocketTest, ASocketFileLeftByAKilledProcessIsNoObstacle) {
  const std::string path = folder_ + "/wire";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  close(fd);  // the file stays, nobody listens
  ASSERT_EQ(access(path.c_str(), F_OK), 0);
  Server server(Ipc());
  EXPECT_EQ(server.endpoint(), Ipc());
}

TEST_F(SocketTest, ALongIpcPathMovesToAPrivateFolder) {
  std::string moved;
  {
    Server server("ipc:///tmp/" + std::string(120, 'd') + "/wire");
    moved = server.endpoint().substr(6);
    EXPECT_LE(moved.size(), 100u);
    struct stat info {};
    ASSERT_EQ(stat(moved.substr(0, moved.rfind('/')).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0700u);
    Client client(server.endpoint());
    Incoming in;
    client.Send(Heartbeat().Encode());
    EXPECT_TRUE(Until(server, [&] {
      client.Flush();
      return server.Receive(&in);
    }));
  }
  EXPECT_NE(access(moved.substr(0, moved.rfind('/')).c_str(), F_OK), 0);
}

TEST(EndpointTest, BeyondLoopbackKeysAreRequired) {
  for (const char* bind : {"tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://10.0.0.1:5555",
                           "tcp://[::]:5555", "tcp://eth0:5555", "tcp://127.0.0.1.example:5555"}) {
    const std::string error = ErrorOf<UserError>([&] { BindEndpoint endpoint(bind, ""); });
    EXPECT_NE(error.find("loopback"), std::string::npos) << bind << ": " << error;
    EXPECT_NE(error.find("wire.keys"), std::string::npos) << bind << ": " << error;
    EXPECT_THROW(CheckConnect(bind, ""), UserError) << bind;
  }
  EXPECT_EQ(CheckConnect("tcp://localhost:5555", ""), "tcp://127.0.0.1:5555");
  EXPECT_EQ(CheckConnect("tcp://[::1]:5555", ""), "tcp://[::1]:5555");
}

TEST(EndpointTest, WhatIsNoEndpointIsRefused) {
  for (const char* bind : {"", "5555", "tcp://127.0.0.1", "tcp://127.0.0.1:", "inproc://x",
                           "udp://127.0.0.1:1", "ipc://", "ipc://@hidden"}) {
    EXPECT_THROW(BindEndpoint(bind, ""), UserError) << bind;
  }
}

}  // namespace
}  // namespace temper::wire
