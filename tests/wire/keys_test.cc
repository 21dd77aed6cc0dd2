#include "wire/keys.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>

#include "configs/files.h"
#include "configs/json.h"
#include "tests/error_of.h"
#include "wire/client.h"
#include "wire/protocol.h"
#include "wire/server.h"

namespace temper::wire {
namespace {

using Clock = std::chrono::steady_clock;

class KeysTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = "/tmp/temper-keys-XXXXXX";
    ASSERT_NE(mkdtemp(folder_.data()), nullptr);
    NewKeys(folder_, {"a1", "a2"});
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string File(const std::string& name) const { return folder_ + "/" + name + ".json"; }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(File(name)) << text;
    chmod(File(name).c_str(), 0600);
  }
  /// Another learner's folder, whose peers are strangers here.
  std::string Stranger() const {
    if (!std::filesystem::exists(folder_ + "/other")) NewKeys(folder_ + "/other", {"a1"});
    return folder_ + "/other/a1.json";
  }
  static constexpr double kLong = 60;  // what comes at all has come by then, under any load
  /// Both sides' threads are this one: pumps them until `done` or the deadline.
  static bool Until(std::vector<Socket*> sockets, double seconds,
                    const std::function<bool()>& done) {
    const auto end = Clock::now() + std::chrono::duration<double>(seconds);
    while (!done()) {
      if (Clock::now() > end) return false;
      for (Socket* socket : sockets) socket->Wait(2000);
    }
    return true;
  }
  /// A heartbeat there and one back.
  static bool Talk(Server* server, Client* client) {
    Incoming in;
    client->Send(Heartbeat().Encode());
    if (!Until({server, client}, kLong, [&] {
          client->Flush();
          return server->Receive(&in);
        })) {
      return false;
    }
    server->Send(in.peer, Heartbeat().Encode());
    return Until({server, client}, kLong, [&] { return client->Receive(&in); });
  }
  static std::uint64_t Count(Socket* socket, const std::string& reason) {
    const auto found = socket->refusals().counts().find(reason);
    return found == socket->refusals().counts().end() ? 0 : found->second;
  }

  std::string folder_;
};

TEST_F(KeysTest, TheFilesAreTheirOwnersAlone) {
  for (const char* name : {"learner", "a1", "a2"}) {
    struct stat info {};
    ASSERT_EQ(stat(File(name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
  }
  const Keys learner = ReadKeys(File("learner")), a1 = ReadKeys(File("a1"));
  EXPECT_TRUE(learner.is_learner);
  EXPECT_FALSE(a1.is_learner);
  EXPECT_EQ(a1.learner, learner.public_key);
  EXPECT_EQ(learner.allow.size(), 3u);
  EXPECT_EQ(learner.allow.at(a1.public_key), "a1");
  EXPECT_EQ(learner.allow.at(learner.public_key), "learner");
}

TEST_F(KeysTest, MorePeersJoinTheListAndNobodyIsReplaced) {
  const Keys before = ReadKeys(File("learner"));
  EXPECT_EQ(NewKeys(folder_, {"a3"}), std::vector<std::string>{File("a3")});
  const Keys after = ReadKeys(File("learner"));
  EXPECT_EQ(after.secret_key, before.secret_key);
  EXPECT_EQ(after.allow.size(), before.allow.size() + 1);
  EXPECT_NE(ErrorOf<UserError>([&] {
              NewKeys(folder_, {"a4", "a1"});
            }).find("has a key already"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(File("a4")));
  for (const char* name : {"", "../x", "learner", ".x", "a b"}) {
    EXPECT_THROW(NewKeys(folder_, {name}), UserError) << name;
  }
}

TEST_F(KeysTest, WhatIsNoKeyFileIsRefusedByItsMember) {
  const std::string good = configs::ReadWholeFile(File("a1"), 4096);
  const auto changed = [&](const char* member, const Json& value) {
    Json json = configs::ParseJson(good, "good");
    if (value.is_null()) {
      json.erase(member);
    } else {
      json[member] = value;
    }
    return json.dump();
  };
  const std::string other = ReadKeys(File("a2")).public_key;
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"[]", "not an object"},
      {changed("public", nullptr), "public is missing"},
      {changed("secret", "short"), "secret is no CURVE key"},
      {changed("secret", std::string(40, '~')), "secret is no CURVE key"},
      {changed("secret", 7), "secret is no CURVE key"},
      {changed("public", other), "public does not belong to secret"},
      {changed("learner", nullptr), "a learner's file has"},
      {changed("allow", Json::object()), "a learner's file has"},
      {changed("extra", 1), "is no member of a key file"},
      {"{", "bad.json"}};
  for (const auto& [text, what] : cases) {
    Write("bad", text);
    const std::string error = ErrorOf<UserError>([&] { ReadKeys(File("bad")); });
    EXPECT_NE(error.find(what), std::string::npos) << text << ": " << error;
    EXPECT_NE(error.find("bad.json"), std::string::npos) << error;
  }
  chmod(File("a1").c_str(), 0644);
  EXPECT_NE(ErrorOf<UserError>([&] { ReadKeys(File("a1")); }).find("chmod 600"), std::string::npos);
  EXPECT_THROW(ReadKeys(File("none")), UserError);
}

TEST_F(KeysTest, ListedPeersTalkAndTheLearnersOwnMachineToo) {
  Server server("tcp://127.0.0.1:*", File("learner"));
  for (const char* name : {"a1", "a2", "learner"}) {
    Client client(server.endpoint(), File(name));
    EXPECT_TRUE(Talk(&server, &client)) << name;
    EXPECT_EQ(client.refused(), "");
  }
  EXPECT_TRUE(server.refusals().counts().empty());
  EXPECT_NE(
      ErrorOf<UserError>([&] { Server wrong("tcp://127.0.0.1:*", File("a1")); }).find("allow-list"),
      std::string::npos);
}

TEST_F(KeysTest, AKeyThatIsNotListedIsRefusedOnBothSidesAndNobodyElseIsDisturbed) {
  Server server("tcp://127.0.0.1:*", File("learner"));
  Client honest(server.endpoint(), File("a1"));
  ASSERT_TRUE(Talk(&server, &honest));
  // A stranger who knows the learner's public key, with a pair of its own.
  Json stranger = configs::ReadJsonFile(Stranger());
  stranger["learner"] = ReadKeys(File("learner")).public_key;
  Write("stranger", stranger.dump());
  Client client(server.endpoint(), File("stranger"));
  client.Send(Heartbeat().Encode());
  ASSERT_TRUE(Until({&server, &client}, kLong, [&] {
    client.Flush();
    return !client.refused().empty();
  }));
  EXPECT_NE(client.refused().find("allow-list has no key"), std::string::npos) << client.refused();
  EXPECT_GE(Count(&server, "unlisted_key"), 1u);
  const std::vector<std::string> notes = server.refusals().TakeNotes();
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find(ReadKeys(File("stranger")).public_key), std::string::npos) << notes[0];
  EXPECT_NE(notes[0].find("127.0.0.1"), std::string::npos) << notes[0];
  Incoming in;
  EXPECT_FALSE(server.Receive(&in));  // no byte of it
  EXPECT_TRUE(Talk(&server, &honest));
}

TEST_F(KeysTest, EveryOtherWrongHandshakeIsRefusedWithAReasonOnBothSides) {
  Server server("tcp://127.0.0.1:*", File("learner"));
  Server open("tcp://127.0.0.1:*");
  struct Case {
    const char* what;
    Server* server;
    std::string keys;
  };
  for (const Case& c :
       {Case{"another learner's key", &server, Stranger()}, Case{"no key", &server, ""},
        Case{"a key where none is", &open, File("a1")}}) {
    // Whoever notices the mismatch first ends the connection; to the other it may look broken.
    const auto refused = [&] {
      return Count(c.server, "handshake") + Count(c.server, "broken_handshake");
    };
    const std::uint64_t before = refused();
    Client client(c.server->endpoint(), c.keys);
    client.Send(Heartbeat().Encode());
    EXPECT_TRUE(Until({c.server, &client}, kLong, [&] {
      client.Flush();
      return refused() > before && Count(&client, "handshake") > 0;
    })) << c.what;
    EXPECT_NE(client.refusals().TakeNotes().at(0).find("no handshake with the learner"),
              std::string::npos);
    Incoming in;
    EXPECT_FALSE(c.server->Receive(&in)) << c.what;
  }
  EXPECT_FALSE(server.refusals().TakeNotes().empty());
}

TEST_F(KeysTest, AHandshakeThatNeverSucceedsIsGivenUpByItsDeadline) {
  // Another learner's key: ZeroMQ tries again and again.
  Server server("tcp://127.0.0.1:*", File("learner"));
  Client client(server.endpoint(), Stranger());
  const auto began = Clock::now();
  ASSERT_TRUE(Until({&server, &client}, kLong, [&] { return !client.refused().empty(); }));
  EXPECT_GE(std::chrono::duration<double>(Clock::now() - began).count(), 7.9);
}

TEST_F(KeysTest, ALearnerThatAnswersNothingIsWaitedFor) {
  // A listening socket that nobody serves: a stopped learner.
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(fd, 16), 0);
  socklen_t size = sizeof(address);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  Client client("tcp://127.0.0.1:" + std::to_string(ntohs(address.sin_port)), File("a1"));
  EXPECT_FALSE(Until({&client}, 11, [&] { return !client.refused().empty(); }));
  EXPECT_GT(Count(&client, "handshake"), 0u);
  close(fd);
}

TEST_F(KeysTest, AListThatChangesCountsFromTheNextConnectionOn) {
  Server server("tcp://127.0.0.1:*", File("learner"));
  NewKeys(folder_, {"late"});
  Client late(server.endpoint(), File("late"));
  EXPECT_TRUE(Talk(&server, &late));
  Json learner = configs::ReadJsonFile(File("learner"));
  learner["allow"].erase("a2");
  Write("learner", learner.dump());
  Client removed(server.endpoint(), File("a2"));
  removed.Send(Heartbeat().Encode());
  EXPECT_TRUE(Until({&server, &removed}, kLong, [&] { return !removed.refused().empty(); }));
  // A file that is none any more changes nothing.
  Write("learner", "{");
  Client listed(server.endpoint(), File("a1"));
  EXPECT_TRUE(Talk(&server, &listed));
  EXPECT_EQ(Count(&server, "key_file"), 1u);
}

TEST_F(KeysTest, BeyondLoopbackAnEndpointIsTakenWithKeys) {
  EXPECT_EQ(CheckConnect("tcp://10.0.0.1:5555", File("a1")), "tcp://10.0.0.1:5555");
  Server server("tcp://0.0.0.0:*", File("learner"));
  EXPECT_EQ(server.endpoint().rfind("tcp://0.0.0.0:", 0), 0u);
}

TEST_F(KeysTest, AThousandStrangersCostNothingButTheirCount) {
  Server server("tcp://127.0.0.1:*", File("learner"));
  Client honest(server.endpoint(), File("a1"));
  ASSERT_TRUE(Talk(&server, &honest));
  const auto began = Clock::now();
  void* context = zmq_ctx_new();
  const int port = std::stoi(server.endpoint().substr(server.endpoint().rfind(':') + 1));
  for (int i = 0; i < 1000; ++i) {
    void* stream = zmq_socket(context, ZMQ_STREAM);
    const int linger = 0;
    zmq_setsockopt(stream, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_connect(stream, ("tcp://127.0.0.1:" + std::to_string(port)).c_str());
    char id[256];
    const int n = zmq_recv(stream, id, sizeof(id), 0);
    // Half a greeting, rubbish, or nothing.
    const std::string text = i % 3 == 0   ? std::string("\xFF\0\0\0\0\0\0\0\x01\x7F", 10)
                             : i % 3 == 1 ? std::string(64, 'x')
                                          : "";
    zmq_send(stream, id, static_cast<std::size_t>(n), ZMQ_SNDMORE);
    zmq_send(stream, text.data(), text.size(), 0);
    zmq_close(stream);
    if (i % 100 == 0) {
      EXPECT_TRUE(Talk(&server, &honest)) << i;
    }
  }
  zmq_ctx_term(context);
  Incoming in;
  EXPECT_FALSE(server.Receive(&in));
  EXPECT_TRUE(Talk(&server, &honest));
  // At once and then every 10 s, for each of two reasons.
  const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
  EXPECT_LE(double(server.refusals().TakeNotes().size()), 2 * (2 + seconds / 10));
}

}  // namespace
}  // namespace temper::wire
