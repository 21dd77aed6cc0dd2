// Failures injected among honest samples: a status each, and never a reward that is not the
// sample's.
#include <signal.h>

#include <atomic>
#include <fstream>
#include <map>
#include <thread>

#include "tests/reward/fixtures.h"

namespace temper::reward {
namespace {

/// The reward of "honest:N" is N; the others do what they say.
constexpr char kScript[] = R"lua(
  function score(s)
    local kind, n = s.completion:match("^(%a+):(%d+)$")
    if kind == "hang" then
      local a, b = ("x"):rep(1 << 22), ("x"):rep(1 << 22)
      while a == b do end
    end
    if kind == "error" then error("injected") end
    if kind == "nan" then return 0 / 0 end
    if kind == "inf" then return {score = 1, part = 1 / 0} end
    if kind == "text" then return n end
    if kind == "nothing" then return end
    if kind == "none" then return nil end
    if kind == "loop" then while true do end end
    return tonumber(n)
  end)lua";

const std::map<std::string, std::string>& Expected() {
  static const std::map<std::string, std::string> expected = {
      {"honest", "ok"},           {"hang", "timeout"},           {"error", "script_error"},
      {"nan", "invalid_return"},  {"inf", "invalid_return"},     {"text", "invalid_return"},
      {"none", "not_applicable"}, {"nothing", "invalid_return"}, {"loop", "budget"}};
  return expected;
}

std::vector<SampleInput> Samples(int count, bool hangs) {
  const char* const kinds[] = {"error", "nan", "inf", "text", "nothing", "none", "loop", "hang"};
  std::vector<SampleInput> samples;
  std::uint64_t x = 42;
  for (int i = 0; i < count; ++i) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    std::string kind = "honest";
    if ((x >> 40) % 20 == 0) kind = kinds[(x >> 33) % (hangs ? 8 : 7)];  // 5 %
    samples.push_back(Sample(kind + ":" + std::to_string(i)));
  }
  return samples;
}

std::string KindOf(const SampleInput& sample) {
  return sample.completion.substr(0, sample.completion.find(':'));
}

TEST(Injection, FivePerCentFailuresGiveTheirStatusAndNoForeignReward) {
  RewardHost host(With({Script(kScript)}, 0.3));
  const std::vector<SampleInput> samples = Samples(2000, true);
  std::map<std::string, int> seen;
  for (std::size_t at = 0; at < samples.size(); at += 16) {
    const auto group =
        std::span(samples).subspan(at, std::min<std::size_t>(16, samples.size() - at));
    const auto results = host.ScoreGroup(group);
    for (std::size_t i = 0; i < group.size(); ++i) {
      const std::string kind = KindOf(group[i]);
      ++seen[kind];
      ASSERT_EQ(results[i].status, Expected().at(kind)) << group[i].completion;
      ASSERT_EQ(results[i].score.has_value(), kind == "honest") << group[i].completion;
      if (results[i].score) {
        ASSERT_EQ(*results[i].score, static_cast<double>(at + i));
      }
    }
  }
  EXPECT_EQ(seen.size(), Expected().size());  // each kind was there
}

/// Sandboxes below this process: grandchildren by way of zygotes.
std::vector<pid_t> Sandboxes() {
  std::vector<pid_t> found;
  std::ifstream zygotes("/proc/self/task/" + std::to_string(getpid()) + "/children");
  for (pid_t zygote = 0; zygotes >> zygote;) {
    const std::string id = std::to_string(zygote);
    std::ifstream children("/proc/" + id + "/task/" + id + "/children");
    for (pid_t child = 0; children >> child;) found.push_back(child);
  }
  return found;
}

TEST(Injection, SandboxesKilledAtRandomCostTheirOwnSamples) {
  RewardHost host(With({Script(kScript)}, 10));
  const std::vector<SampleInput> samples = Samples(16, false);
  std::atomic<int> kills{0}, allowed{3};
  std::jthread killer([&](std::stop_token stop) {
    while (!stop.stop_requested()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5 + kills % 7));
      for (const pid_t pid : Sandboxes()) {
        if (allowed > 0 && kill(pid, SIGKILL) == 0) ++kills, --allowed;
      }
    }
  });
  int crashed = 0, right = 0;
  for (int round = 0; round < 400 || (kills < 60 && round < 20000); ++round) {
    allowed = 3;  // five deaths at birth in a row, which a busy machine makes of more, end a run
    const auto results = host.ScoreGroup(samples);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const std::string kind = KindOf(samples[i]);
      if (results[i].status == "crashed") {
        ++crashed;
        EXPECT_FALSE(results[i].score.has_value());
        continue;
      }
      ++right;
      ASSERT_EQ(results[i].status, Expected().at(kind)) << samples[i].completion;
      if (results[i].score) {
        ASSERT_EQ(*results[i].score, static_cast<double>(i));
      }
    }
  }
  EXPECT_GT(kills, 0);
  EXPECT_GT(right, 0);
  RecordProperty("crashed", crashed);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

TEST(Injection, WithoutSeccompScriptsScoreAndTheHostSaysWhatIsMissing) {
  HostOptions options = With({Script(kScript)}, 0.3);
  options.zygote_argv = {"/proc/self/exe", "blind-zygote"};
  RewardHost host(std::move(options));
  host.Check();
  EXPECT_EQ(host.missing_isolation(), "seccomp");
  for (const auto& [kind, status] : Expected()) {
    const ScoreResult result = host.ScoreGroup(std::vector{Sample(kind + ":7")})[0];
    EXPECT_EQ(result.status, status) << kind;
  }
  RewardHost whole(With({Script(kScript)}));
  whole.Check();
  EXPECT_EQ(whole.missing_isolation(), "");
}

#endif

}  // namespace
}  // namespace temper::reward
