// A worker in a thread against a learner's socket, message by message.
#include "reward/worker.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <thread>

#include "configs/config.h"
#include "configs/error.h"
#include "configs/version.h"
#include "reward/function.h"
#include "tests/reward/zygote_entry.h"
#include "wire/protocol.h"
#include "wire/server.h"

namespace temper::reward {
namespace {

using wire::Kind;

class WorkerTest : public testing::Test {
 protected:
  WorkerTest()
      : server_("ipc://" + testing::TempDir() + "temper_worker_" + std::to_string(getpid())) {
    options_.endpoint = server_.endpoint();
    options_.name = "w1";
    options_.stop = &stop_;
    options_.first_timeout_s = 20;
  }
  ~WorkerTest() override {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }

  void Start() {
    thread_ = std::thread([this] {
      try {
        code_ = RunWorker(options_);
      } catch (const std::exception& error) {
        error_ = error.what();
      }
    });
  }

  /// The next message of `kind`, past heartbeats; fails after a minute.
  wire::Message Expect(Kind kind) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < end) {
      server_.Wait(100000);
      wire::Incoming incoming;
      while (server_.Receive(&incoming)) {
        EXPECT_EQ(incoming.error, "");
        peer_ = incoming.peer;
        const auto got = static_cast<Kind>(incoming.message.kind);
        if (got == Kind::kHeartbeat) ++heartbeats_;
        if (got == kind) return incoming.message;
      }
    }
    ADD_FAILURE() << "no " << wire::KindName(static_cast<std::uint16_t>(kind));
    return {};
  }

  wire::Welcome Welcome(const std::string& script, double timeout_s = 10) {
    configs::Config config;
    config.output_dir = "/tmp/run";
    config.model = "/tmp/model";
    config.data.train = "/tmp/data.jsonl";
    config.rewards = {{"/scripts/x.lua", "", "", 1.0}, {"", "accuracy", "", 2.0}};
    config.reward.timeout_s = timeout_s;
    wire::Welcome welcome;
    welcome.session = 77;
    welcome.run = "tiny";
    welcome.peer_timeout_s = 20;
    welcome.config = configs::ToJson(config).dump();
    welcome.files = {{"/scripts/x.lua", script}};
    return welcome;
  }

  wire::ScoreRequest Request(std::uint64_t id) {
    wire::ScoreRequest request;
    request.id = id;
    request.grp = 41;
    request.step = 3;
    request.prompt = "\"17 + 25 =\"";
    request.row = R"({"bonus":1.5})";
    request.answer = "42";
    request.samples = {{0, 17, "stop", "42", {4, 2}}, {1, 17, "length", "7", {7}}};
    return request;
  }

  void Send(const wire::Message& message) { ASSERT_TRUE(server_.Send(peer_, message)); }

  wire::Server server_;
  WorkerOptions options_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
  std::string peer_, error_;
  int code_ = -1, heartbeats_ = 0;
};

TEST_F(WorkerTest, ScoresAGroupWithTheScriptsOfTheWelcome) {
  Start();
  const wire::Hello hello = wire::Hello::Decode(Expect(Kind::kHello));
  EXPECT_EQ(hello.name, "w1");
  EXPECT_EQ(hello.role, wire::Role::kRewardWorker);
  EXPECT_EQ(hello.temper_version, kVersion);
  Send(Welcome("function score(s) assert(s.step == 3 and s.version == 17)\n"
               "return {score = s.row.bonus, length = #s.completion_ids} end")
           .Encode());
  Send(Request(5).Encode());
  Send(Request(6).Encode());
  for (std::uint64_t id : {5, 6}) {
    const auto result = wire::ScoreResult::Decode(Expect(Kind::kScoreResult));
    EXPECT_EQ(result.id, id);
    EXPECT_EQ(result.grp, 41u);
    ASSERT_EQ(result.samples.size(), 2u);
    EXPECT_EQ(result.samples[0].score, 3.5);
    EXPECT_EQ(result.samples[1].score, 1.5);
    EXPECT_EQ(result.samples[1].sample, 1u);
    ASSERT_EQ(result.samples[0].parts.size(), 3u);
    EXPECT_EQ(result.samples[0].parts[0].name, "x");
    EXPECT_EQ(result.samples[0].parts[0].script_sha256.size(), 64u);
    EXPECT_EQ(result.samples[0].parts[1].name, "x/length");
    EXPECT_EQ(result.samples[0].parts[2].name, "accuracy");
  }
  Send(wire::Goodbye{"done", false}.Encode());
  thread_.join();
  EXPECT_EQ(code_, 0);
}

TEST_F(WorkerTest, KeepsItsHeartbeatWhileAScriptHangs) {
  Start();
  Expect(Kind::kHello);
  Send(Welcome("function score(s) if s.completion ~= '7' then return 1 end\n"
               "local a, b = ('x'):rep(1 << 22), ('x'):rep(1 << 22)\n"
               "while a == b do end end",
               2.5)
           .Encode());
  Send(Request(1).Encode());
  const auto result = wire::ScoreResult::Decode(Expect(Kind::kScoreResult));
  EXPECT_EQ(result.samples[0].score, 3.0);
  EXPECT_EQ(result.samples[1].status, "timeout");
  EXPECT_FALSE(result.samples[1].score);
  EXPECT_GE(heartbeats_, 2);
}

TEST_F(WorkerTest, ChangedScriptsScoreTheRequestsThatFollow) {
  const std::string one = "function score() return 1 end", two = "function score() return 2 end";
  const auto part = [&] {
    return wire::ScoreResult::Decode(Expect(Kind::kScoreResult)).samples[1].parts[0];
  };
  Start();
  Expect(Kind::kHello);
  Send(Welcome(one).Encode());
  Send(Request(1).Encode());
  Send(wire::Scripts{{{"/scripts/x.lua", two}}}.Encode());
  Send(Request(2).Encode());
  const wire::ScorePart before = part(), after = part();
  EXPECT_EQ(before.value, 1.0);
  EXPECT_EQ(before.script_sha256, Sha256Hex(one));
  EXPECT_EQ(after.value, 2.0);
  EXPECT_EQ(after.script_sha256, Sha256Hex(two));
  // A learner that took this worker for gone says what is in use when it is back.
  usleep(1100000);
  Send(wire::Refuse{wire::kHelloFirst, "who are you", {}}.Encode());
  Expect(Kind::kHello);
  Send(Welcome(one).Encode());
  Send(Request(3).Encode());
  EXPECT_EQ(part().value, 1.0);
}

TEST_F(WorkerTest, SaysHelloAgainWhenItsLearnerForgotIt) {
  Start();
  Expect(Kind::kHello);
  Send(Welcome("function score() return 1 end").Encode());
  Expect(Kind::kHeartbeat);
  usleep(1100000);
  Send(wire::Refuse{wire::kHelloFirst, "who are you", {}}.Encode());
  const wire::Hello again = wire::Hello::Decode(Expect(Kind::kHello));
  EXPECT_EQ(again.session, 77u);
  wire::Welcome other = Welcome("function score() return 10 end");
  other.session = 78;
  Send(other.Encode());
  Send(Request(1).Encode());
  const auto result = wire::ScoreResult::Decode(Expect(Kind::kScoreResult));
  EXPECT_EQ(result.samples[1].score, 10.0);  // the new session's script
}

TEST_F(WorkerTest, EndsWithThreeWhenTheRunFailed) {
  Start();
  Expect(Kind::kHello);
  Send(wire::Goodbye{"disk full", true}.Encode());
  thread_.join();
  EXPECT_EQ(code_, 3);
}

TEST_F(WorkerTest, LeavesWithItsReasonWhenAScriptCannotWork) {
  Start();
  Expect(Kind::kHello);
  Send(Welcome("function score(").Encode());
  const auto goodbye = wire::Goodbye::Decode(Expect(Kind::kGoodbye));
  thread_.join();
  EXPECT_TRUE(goodbye.failed);
  EXPECT_EQ(error_.find("/scripts/x.lua:1: "), 0u) << error_;
}

TEST_F(WorkerTest, RefusesWhatIsNotItsOwnAndGoesOn) {
  Start();
  Expect(Kind::kHello);
  Send(Welcome("function score() return 1 end").Encode());
  Send(wire::Ack{}.Encode());
  const auto refuse = wire::Refuse::Decode(Expect(Kind::kRefuse));
  EXPECT_EQ(refuse.code, wire::kBadMessage);
  Send(Request(9).Encode());
  EXPECT_EQ(wire::ScoreResult::Decode(Expect(Kind::kScoreResult)).id, 9u);
  stop_ = true;
  Expect(Kind::kGoodbye);
  thread_.join();
  EXPECT_EQ(code_, 0);
}

TEST(Worker, GivesUpOnALearnerThatNeverAnswers) {
  WorkerOptions options;
  options.endpoint = "ipc://" + testing::TempDir() + "temper_nobody";
  options.name = "w1";
  options.first_timeout_s = 0.5;
  EXPECT_THROW(RunWorker(options), MachineError);
}

}  // namespace
}  // namespace temper::reward
