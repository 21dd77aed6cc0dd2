// reward_bench: what rewards cost, and how attacks on the sandbox end.
//
//   reward_bench speed            scores a second on one core, and what isolation adds
//   reward_bench attacks [N]      all attacks of tests/reward N times (20) among honest scripts
//   reward_bench starts [N]       one script and one rollout in N processes (1000): one result
//   reward_bench rollouts DIR [N] a run's database with N rollouts (100000), to backtest on
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "bench/reward_attacks.h"
#include "reward/function.h"
#include "reward/host.h"
#include "reward/rules.h"
#include "reward/sandbox.h"
#include "reward/zygote.h"
#include "store/trajectories.h"
#include "tests/reward/lying_zygote.h"

namespace temper::reward {
namespace {

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Calls `run` (which does `count` scores) until a second has passed, three times; the median rate.
template <typename Run>
double Rate(int count, const Run& run) {
  std::vector<double> rates;
  for (int round = 0; round < 3; ++round) {
    const auto begin = Clock::now();
    double done = 0;
    do {
      run();
      done += count;
    } while (Since(begin) < 1.0);
    rates.push_back(done / Since(begin));
  }
  std::sort(rates.begin(), rates.end());
  return rates[1];
}

void Print(const char* what, double rate) {
  std::printf("%-44s %10.0f /s %8.2f us\n", what, rate, 1e6 / rate);
}

std::vector<SampleInput> MathGroup() {
  const char* const answers[] = {"\\frac{3}{4}", "42",   "x^2+2x+1", "\\sqrt{2}",
                                 "(1, 2)",       "0.75", "7\\%",     "12"};
  std::vector<SampleInput> samples;
  for (int i = 0; i < 16; ++i) {
    SampleInput sample = Sample(
        "We add the terms, so the result is \\boxed{" + std::string(answers[i % 8]) + "}.", "0.75");
    samples.push_back(sample);
  }
  return samples;
}

void MathSpeed() {
  const Rule& rule = *FindRule("math");
  const std::vector<SampleInput> samples = MathGroup();
  double sum = 0;
  Print("math, in this process", Rate(16, [&] {
          for (const SampleInput& s : samples)
            sum += RunRule(rule, s.completion, *s.answer).value_or(0);
        }));
  const char* const same[] = {"\\frac{3}{4}", "0.75", "\\dfrac{6}{8}", "3/4"};
  Print("math, every answer right", Rate(4, [&] {
          for (const char* text : same)
            sum += RunRule(rule, std::string("\\boxed{") + text + "}", "0.75").value_or(0);
        }));
  if (sum < 0) std::printf("%f\n", sum);
}

void ScriptSpeed(const char* what, const std::string& text) {
  Job job;
  job.name = "bench.lua";
  job.script = text;
  Function function(job);
  std::vector<SampleInput> samples(16, Sample("17+25=42;<42>", "42"));
  for (std::size_t i = 0; i < samples.size(); ++i) samples[i].completion += std::string(i, ' ');
  if (function.Score(samples[0]).status != Status::kOk) {
    std::printf("%s: %s\n", what, function.Score(samples[0]).message.c_str());
    return;
  }
  const double here = Rate(16, [&] {
    for (const SampleInput& sample : samples) function.Score(sample);
  });
  Print((std::string(what) + ", in this process").c_str(), here);
  HostOptions options;
  options.functions = {Script(text, "bench")};
  RewardHost host(std::move(options));
  host.ScoreGroup(samples);
  const double isolated = Rate(16, [&] { host.ScoreGroup(samples); });
  Print((std::string(what) + ", isolated, groups of 16").c_str(), isolated);
  std::printf("%-44s %26.2f us\n", "  isolation adds, a reward", 1e6 / isolated - 1e6 / here);
}

int Speed() {
  MathSpeed();
  const std::string library = std::string(TEMPER_SOURCE_DIR) + "/reward/library/";
  ScriptSpeed("sum.lua", ReadScript(library + "sum.lua"));
  ScriptSpeed("smallest script", "function score(s) return #s.completion end");
  ScriptSpeed("rules.math in Lua",
              "function score(s) return rules.math(s.completion, s.answer) end");
  return 0;
}

/// One script and one rollout in processes of their own addresses and hash seeds.
int Starts(int count) {
  const std::string text =
      ReadScript(std::string(TEMPER_SOURCE_DIR) + "/tests/reward/data/orders.lua");
  std::map<double, int> results;
  for (int start = 0; start < count; ++start) {
    HostOptions options;
    options.functions = {Script(text, "orders")};
    const ScoreResult result =
        RewardHost(std::move(options)).ScoreGroup(std::vector{Sample("42", "42")})[0];
    if (!result.score) {
      std::printf("%s: %s\n", result.status.c_str(), result.parts[0].message.c_str());
      return 1;
    }
    ++results[*result.score];
  }
  std::printf("process starts %d, different results %zu\n", count, results.size());
  return results.size() == 1 ? 0 : 1;
}

/// A run's database with so many scored rollouts, for temper reward backtest.
int Rollouts(const std::string& dir, int count) {
  std::filesystem::create_directories(dir);
  store::Trajectories db =
      store::Trajectories::Create(dir + "/trajectories.db", {"bench", "0", "none", "{}", 0});
  constexpr int kGroup = 16;
  db.Begin();
  for (int i = 0; i < count; ++i) {
    const int grp = i / kGroup, a = grp % 97, b = grp % 89;
    if (i % kGroup == 0) {
      store::GroupRow group;
      group.grp = static_cast<std::uint64_t>(grp);
      const std::string prompt = std::to_string(a) + "+" + std::to_string(b) + ";";
      group.prompt_json = Json(prompt).dump();
      group.row_json = Json{{"prompt", prompt}, {"answer", a + b}}.dump();
      group.prompt_ids = {1, 2, 3};
      db.PutGroup(group);
    }
    store::RolloutRow row;
    row.grp = static_cast<std::uint64_t>(grp);
    row.sample = static_cast<std::uint32_t>(i % kGroup);
    row.state = "received";
    row.text = std::to_string(a) + "+" + std::to_string(b) + "=" + std::to_string(a + b) + ";<" +
               std::to_string(a + b + (i % 3 == 0)) + ">";
    row.ids.assign(row.text.size(), 7);
    row.logp.assign(row.ids.size(), -0.5f);
    row.loss_mask.assign(row.ids.size(), 1);
    row.finish_reason = "stop";
    db.PutRollout(row);
    db.PutScore(row.grp, row.sample, 0, i % 3 == 0 ? 0.0 : 1.0, "ok", {});
  }
  db.Commit();
  std::printf("%d rollouts in %s\n", count, dir.c_str());
  return 0;
}

}  // namespace
}  // namespace temper::reward

int main(int argc, char** argv) {
  using namespace temper::reward;
  const std::string command = argc > 1 ? argv[1] : "";
  if (command == "reward-zygote") return ZygoteMain(kZygoteFd);
  if (command == "lying-zygote" && argc > 2) return LyingZygote(kZygoteFd, argv[2]);
  if (command == "speed") return Speed();
  if (command == "attacks") return RunAttacks(argc > 2 ? std::atoi(argv[2]) : 20);
  if (command == "starts") return Starts(argc > 2 ? std::atoi(argv[2]) : 1000);
  if (command == "rollouts" && argc > 2) {
    return Rollouts(argv[2], argc > 3 ? std::atoi(argv[3]) : 100000);
  }
  std::fprintf(stderr,
               "usage: reward_bench speed | attacks [TIMES] | starts [N] | rollouts DIR [N]\n");
  return 2;
}
