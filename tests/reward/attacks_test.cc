// Hostile scripts among honest ones: each ends in time, as what it is, and changes nobody's reward.
#include "tests/reward/attacks.h"

#include <signal.h>

#include <chrono>
#include <set>
#include <thread>

#include "reward/channel.h"
#include "reward/script.h"
#include "tests/reward/fixtures.h"

namespace temper::reward {
namespace {

constexpr double kDeadline = 0.1;

struct Ended {
  std::string status, message;
  double score = -1;
  std::int64_t micros = 0;
  bool honest_kept = true;
};

Ended RunAmongHonest(const Attack& attack, const std::shared_ptr<Zygote>& zygote, double deadline) {
  HostOptions options = With({Script(kHonestScript, "before"), Script(attack.script, "attack"),
                              Script(kHonestScript, "after")},
                             deadline);
  options.zygote = zygote;
  RewardHost host(std::move(options));
  const std::vector<SampleInput> samples = {Sample("42"), Sample("42")};
  Ended ended;
  for (const ScoreResult& result : host.ScoreGroup(samples)) {
    for (const ScorePart& part : result.parts) {
      if (part.name == "attack") {
        ended.status = part.status;
        ended.message = part.message;
        ended.score = part.value.value_or(-1);
        ended.micros = std::max(ended.micros, part.micros);
      } else if (part.name == "before" || part.name == "after") {
        ended.honest_kept = ended.honest_kept && part.value == kHonestScore;
      }
    }
  }
  return ended;
}

std::vector<Attack> AllAttacks() {
  return Attacks(std::string(TEMPER_SOURCE_DIR) + "/tests/reward/attacks");
}

TEST(Attacks, EndInTimeAndChangeNobodysReward) {
  auto zygote = std::make_shared<Zygote>(HostOptions().zygote_argv);
  EXPECT_EQ(AllAttacks().size(), 90u);
  for (const Attack& attack : AllAttacks()) {
    Ended ended;
    bool right = false;
    // A machine that takes the processor away for 100 ms is no fault of the sandbox: it gets more
    // time, and must keep to that.
    double deadline = kDeadline;
    for (int attempt = 0; attempt < 7 && !right; ++attempt, deadline *= 2) {
      ended = RunAmongHonest(attack, zygote, deadline);
      right =
          ended.honest_kept && double(ended.micros) < 3.5e6 * deadline &&
          (Expected(attack, ended.status, ended.score) || EndedByTheClock(attack, ended.status));
    }
    EXPECT_TRUE(right) << attack.name << ": " << ended.status << " " << ended.score << " "
                       << ended.message << " after " << ended.micros << " us, honest rewards "
                       << (ended.honest_kept ? "kept" : "changed");
    EXPECT_EQ(ended.message.find("signal 31"), std::string::npos)
        << attack.name << " made a system call outside the list";
    EXPECT_LE(ended.message.size(), 3 * kMaxMessage) << attack.name;
  }
}

TEST(Attacks, EndByTheirOwnLimitWhereTheClockIsFar) {
  auto zygote = std::make_shared<Zygote>(HostOptions().zygote_argv);
  for (const Attack& attack : AllAttacks()) {
    if (Expects(attack, "timeout")) continue;
    const Ended ended = RunAmongHonest(attack, zygote, 20);
    EXPECT_TRUE(Expected(attack, ended.status, ended.score))
        << attack.name << ": " << ended.status << " " << ended.score << " " << ended.message;
  }
}

const std::string kOrders =
    ReadScript(std::string(TEMPER_SOURCE_DIR) + "/tests/reward/data/orders.lua");

TEST(Attacks, AScriptAndARolloutGiveOneResultInFiftyProcesses) {
  std::set<double> results;
  for (int start = 0; start < 50; ++start) {
    RewardHost host(
        With({Script(kOrders)}));  // a zygote of its own: other addresses, another hash seed
    const ScoreResult result = host.ScoreGroup(std::vector{Sample("42")})[0];
    ASSERT_EQ(result.status, "ok") << result.parts[0].message;
    results.insert(*result.score);
  }
  EXPECT_EQ(results.size(), 1u);
}

TEST(Attacks, TheThousandthCallGivesWhatTheFirstGave) {
  Job job;
  job.name = "f";
  job.script = kOrders;
  LuaScript script(job);
  const Outcome first = script.Score(Sample("42"));
  ASSERT_EQ(first.status, Status::kOk) << first.message;
  for (int call = 0; call < 1000; ++call) {
    // Others in between, some of which fail.
    if (call % 10 == 0) script.Score(Sample(std::string(1000, 'x')));
    ASSERT_EQ(script.Score(Sample("42")).score, first.score) << call;
  }
}

TEST(Attacks, AFailedCallLeavesNothingBehind) {
  Job job;
  job.name = "f";
  job.limits.memory_mib = 8;
  job.script =
      "keep = {}\n"
      "function score(s)\n"
      "  assert(#keep == 0)\n"
      "  if s.completion == 'loop' then while true do end end\n"
      "  if s.completion == 'fill' then while true do keep[#keep + 1] = ('x'):rep(1000) .. #keep "
      "end end\n"
      "  if s.completion == 'error' then keep[1] = 1 error('no') end\n"
      "  return 1\n"
      "end";
  LuaScript script(job);
  for (int round = 0; round < 20; ++round) {
    EXPECT_EQ(script.Score(Sample("loop")).status, Status::kBudget);
    EXPECT_EQ(script.Score(Sample("1")).score, 1.0);
    EXPECT_EQ(script.Score(Sample("fill")).status, Status::kMemory);
    EXPECT_EQ(script.Score(Sample("1")).score, 1.0);
    EXPECT_EQ(script.Score(Sample("error")).status, Status::kScriptError);
    EXPECT_EQ(script.Score(Sample("1")).score, 1.0);
  }
}

TEST(Attacks, AStoppedSandboxIsReplacedAtItsDeadline) {
  auto zygote = std::make_shared<Zygote>(HostOptions().zygote_argv);
  HostOptions options = With({Script("function score() return 1 end")}, 0.2);
  options.zygote = zygote;
  RewardHost host(std::move(options));
  ASSERT_EQ(host.ScoreGroup(std::vector{Sample("1")})[0].status, "ok");
  std::ifstream children("/proc/self/task/" + std::to_string(getpid()) + "/children");
  pid_t child = 0, sandbox = 0;
  while (children >> child) {
    const std::string id = std::to_string(child);
    std::ifstream inner("/proc/" + id + "/task/" + id + "/children");
    inner >> sandbox;
  }
  ASSERT_GT(sandbox, 1);
  ASSERT_EQ(kill(sandbox, SIGSTOP), 0);
  const auto results = host.ScoreGroup(std::vector{Sample("1"), Sample("2")});
  EXPECT_EQ(results[0].status, "timeout");
  EXPECT_EQ(results[1].status, "ok");
  EXPECT_EQ(host.spawned(), 2);
}

/// A zygote whose sandboxes do as `how` says: tests/reward/lying_zygote.h.
std::vector<std::string> StatusesOfALiar(const std::string& how) {
  HostOptions options = With({Script("function score() return 1 end")}, 0.3);
  options.zygote_argv = {"/proc/self/exe", "lying-zygote", how};
  RewardHost host(std::move(options));
  std::vector<std::string> statuses;
  for (const ScoreResult& result : host.ScoreGroup(std::vector{Sample("1"), Sample("2")})) {
    statuses.push_back(result.status);
    EXPECT_FALSE(result.status == "ok" && result.score != 1.0) << how;
  }
  return statuses;
}

TEST(Attacks, ALyingSandboxGivesNoReward) {
  for (const Liar& liar : kLiars) {
    EXPECT_EQ(StatusesOfALiar(liar.how), std::vector<std::string>(2, liar.status)) << liar.how;
  }
}

}  // namespace
}  // namespace temper::reward
