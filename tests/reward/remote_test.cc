// Remote rewards against servers that are dead, slow, flapping or talk nonsense.
#include "reward/remote.h"

#include <chrono>
#include <cmath>
#include <thread>

#include "tests/engine/temp_dir.h"
#include "tests/reward/fake_remote.h"
#include "tests/reward/fixtures.h"

namespace temper::reward {
namespace {

class RemoteTest : public testing::Test {
 protected:
  std::string Endpoint() const { return "ipc://" + (folder_ / "remote"); }
  const TempDir folder_;
  const std::vector<SampleInput> samples_ = {Sample("it is 42"), Sample("it is 41")};
};

TEST_F(RemoteTest, GivesWhatTheServerGives) {
  FakeServer server(Endpoint(), Honest);
  RemoteReward remote(Endpoint(), 60, 0);
  for (int group = 0; group < 3; ++group) {
    const auto outcomes = remote.Score(samples_);
    ASSERT_EQ(outcomes[0].status, Status::kOk) << outcomes[0].message;
    EXPECT_EQ(outcomes[0].score, 1.0);
    EXPECT_EQ(outcomes[1].score, 0.0);
  }
  EXPECT_EQ(server.asked(), 3);
}

TEST_F(RemoteTest, PassesOnTablesNilAndErrors) {
  FakeServer server(Endpoint(), [](const Frames& request) {
    return Sent(Scores(request, Json::parse(R"([{"score":0.5,"format":1},null,{"error":"no"},
                                                {"score":null,"x":1}])")));
  });
  RemoteReward remote(Endpoint(), 60, 0);
  const auto outcomes = remote.Score(std::vector<SampleInput>(4, Sample("x")));
  EXPECT_EQ(outcomes[0].score, 0.5);
  EXPECT_EQ(outcomes[0].fields.at(0), std::make_pair(std::string("format"), 1.0));
  EXPECT_EQ(outcomes[1].status, Status::kNotApplicable);
  EXPECT_EQ(outcomes[2].status, Status::kScriptError);
  EXPECT_EQ(outcomes[2].message, "no");
  EXPECT_EQ(outcomes[3].status, Status::kNotApplicable);
}

TEST_F(RemoteTest, SendsPromptRowAnswerAndEverySample) {
  Json seen;
  {
    FakeServer server(Endpoint(), [&](const Frames& request) {
      seen = Json::parse(request.at(2));
      return Honest(request);
    });
    RemoteReward(Endpoint(), 60, 0).Score(std::vector{Sample("\xff 42")});
  }
  EXPECT_EQ(seen.at("prompt"), "17 + 25 =");
  EXPECT_EQ(seen.at("answer"), "42");
  EXPECT_EQ(seen.at("row").at("level").at("n").size(), 4u);
  EXPECT_EQ(seen.at("step"), 3);
  EXPECT_EQ(seen.at("samples")[0].at("completion"), "\xEF\xBF\xBD 42");
  EXPECT_EQ(seen.at("samples")[0].at("completion_ids"), Json::parse("[1,2,3]"));
  EXPECT_EQ(seen.at("samples")[0].at("finish_reason"), "stop");
}

TEST_F(RemoteTest, NobodyThereIsUnavailableAfterAllTries) {
  RemoteReward remote(Endpoint(), 0.05, 2);
  const auto begin = std::chrono::steady_clock::now();
  const auto outcomes = remote.Score(samples_);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  for (const Outcome& outcome : outcomes) {
    EXPECT_EQ(outcome.status, Status::kUnavailable);
    EXPECT_FALSE(outcome.score.has_value());
    EXPECT_NE(outcome.message.find("no answer in 0.05 s, asked 3 times"), std::string::npos);
  }
  EXPECT_GT(seconds, 3 * 0.05 + 0.1 + 0.2);  // the pauses between tries grow
}

TEST_F(RemoteTest, ASlowServerIsUnavailableAndItsLateAnswersReachNobody) {
  FakeServer server(Endpoint(), [](const Frames& request) {
    std::this_thread::sleep_for(std::chrono::milliseconds(600));
    return Honest(request);
  });
  RemoteReward remote(Endpoint(), 0.04, 0);
  EXPECT_EQ(remote.Score(samples_)[0].status, Status::kUnavailable);
  RemoteReward patient(Endpoint(), 60, 0);
  EXPECT_EQ(patient.Score(samples_)[0].score, 1.0);
}

TEST_F(RemoteTest, AServerThatComesBackIsAskedAgain) {
  std::unique_ptr<FakeServer> server;
  std::thread starter([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
    server = std::make_unique<FakeServer>(Endpoint(), Honest);
  });
  RemoteReward remote(Endpoint(), 0.3, 20);
  EXPECT_EQ(remote.Score(samples_)[0].score, 1.0);
  starter.join();
  server.reset();
  EXPECT_EQ(RemoteReward(Endpoint(), 0.05, 1).Score(samples_)[0].status, Status::kUnavailable);
  server = std::make_unique<FakeServer>(Endpoint(), Honest);
  EXPECT_EQ(remote.Score(samples_)[1].score, 0.0);
}

TEST_F(RemoteTest, ForgetfulAnswersAreAskedForAgain) {
  int asked = 0;
  FakeServer server(Endpoint(), [&](const Frames& request) {
    return ++asked % 2 == 1 ? Frames() : Honest(request);  // every other request is lost
  });
  RemoteReward remote(Endpoint(), 0.5, 9);
  for (int group = 0; group < 2; ++group) EXPECT_EQ(remote.Score(samples_)[0].score, 1.0);
}

TEST_F(RemoteTest, NonsenseIsInvalidReturnAndNeverANumber) {
  const auto scores = [](const std::string& json) {
    return [json](const Frames& request) { return Sent(Scores(request, Json::parse(json))); };
  };
  const std::vector<FakeServer::Reply> answers = {
      scores("[]"),
      scores("[1]"),
      scores("[1,2,3]"),
      scores("[\"1\",\"1\"]"),
      scores("[true,true]"),
      scores("[[1],[1]]"),
      scores("[{},{}]"),
      scores("[{\"score\":\"1\"},{\"score\":[]}]"),
      scores("[{\"score\":1,\"x\":\"y\"},{\"score\":1,\"\":2}]"),
      scores("{\"0\":1}"),
      scores("1"),
      scores("null"),

      [](const Frames&) { return Frames{"hello"}; },
      [](const Frames&) {
        return Frames{"", ""};
      },
      [](const Frames& request) { return request; },  // an echo: no scores
      [](const Frames& request) {
        Frames reply = Honest(request);
        reply[1][reply[1].size() / 2] ^= 1;  // the sum no longer holds
        return reply;
      },
      [](const Frames& request) {
        // What Python's json writes for a NaN, with a right sum.
        wire::Message answer = Scores(request, Json::parse("[1.5,1.5]"));
        Frames reply = Sent(answer);
        std::string& header = reply[1];
        const std::size_t at = header.find("1.5");
        header.replace(at, 3, "NaN");
        return reply;
      },
      [](const Frames& request) {
        wire::Message answer = Scores(request, Json::parse("[1,1]"));
        answer.header["id"] = "0000000000000000";
        return Sent(answer);
      },
      [](const Frames& request) {
        wire::Message answer = Scores(request, Json::parse("[1,1]"));
        answer.kind = 31;
        return Sent(answer);
      },
      [](const Frames& request) {
        Frames reply = Honest(request);
        reply.emplace_back(100000, 'x');
        return reply;
      }};
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const TempDir folder;
    const std::string endpoint = "ipc://" + (folder / "r");
    FakeServer server(endpoint, answers[i]);
    RemoteReward remote(endpoint, 5, 3);
    for (const Outcome& outcome : remote.Score(samples_)) {
      EXPECT_EQ(outcome.status, Status::kInvalidReturn) << i << ": " << outcome.message;
      EXPECT_FALSE(outcome.score.has_value()) << i;
      EXPECT_FALSE(outcome.message.empty()) << i;
    }
    EXPECT_EQ(server.asked(), 1) << i;  // nonsense is not asked for again
  }
}

TEST_F(RemoteTest, RandomHeadersNeverThrow) {
  std::uint64_t x = 7;
  const auto next = [&](std::uint64_t n) {
    return (x = x * 6364136223846793005u + 1442695040888963407u, x >> 33) % n;
  };
  const char* const values[] = {"1",
                                "null",
                                "\"a\"",
                                "{}",
                                "[]",
                                "{\"score\":2}",
                                "true",
                                "-0.5",
                                "{\"score\":{}}",
                                "{\"error\":3}",
                                "{\"score\":1,\"a\":null}"};
  for (int round = 0; round < 5000; ++round) {
    wire::Message answer;
    answer.kind = next(4) == 0 ? 31 : 33;
    if (next(8) != 0) {
      std::string list = "[";
      const std::uint64_t size = next(5);
      for (std::uint64_t i = 0; i < size; ++i)
        list += (i > 0 ? "," : "") + std::string(values[next(11)]);
      answer.header["scores"] = Json::parse(list + "]");
    }
    for (const Outcome& outcome : ReadRemoteScores(answer, 2)) {
      EXPECT_EQ(outcome.score.has_value(), outcome.status == Status::kOk);
      EXPECT_TRUE(std::isfinite(outcome.score.value_or(0)));
    }
  }
}

TEST_F(RemoteTest, AnEndpointThatCannotBeIsRefusedBeforeTheRun) {
  for (const char* endpoint : {"http://x", "tcp://127.0.0.1", "tcp://10.0.0.1:5"}) {
    configs::RewardFunction entry;
    entry.remote = endpoint;
    EXPECT_NE(Refusal([&] { MakeFunction(entry, ""); }).find(endpoint), std::string::npos);
  }
}

}  // namespace
}  // namespace temper::reward
