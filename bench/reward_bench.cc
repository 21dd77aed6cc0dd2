// reward_bench: what rewards cost, and how attacks on the sandbox end.
//
//   reward_bench speed            scores a second on one core, and what isolation adds
//   reward_bench attacks [N]      each script of tests/reward/attacks N times (20) among honest
//   ones
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>

#include "reward/function.h"
#include "reward/host.h"
#include "reward/sandbox.h"
#include "reward/zygote.h"
#include "tests/reward/attacks.h"

namespace temper::reward {
namespace {

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

FunctionSpec Script(const std::string& text, const std::string& name) {
  FunctionSpec spec;
  spec.name = name;
  spec.path = name + ".lua";
  spec.script = text;
  spec.sha256 = Sha256Hex(text);
  return spec;
}

SampleInput Sample(const std::string& completion, const std::string& answer) {
  SampleInput sample;
  sample.prompt_json = "\"What is 17 + 25?\"";
  sample.completion = completion;
  sample.completion_ids.assign(32, 7);
  sample.answer = answer;
  sample.row_json = R"({"prompt":"What is 17 + 25?","answer":"42"})";
  sample.finish_reason = "stop";
  return sample;
}

/// Resident bytes of this process.
std::int64_t Resident() {
  std::ifstream file("/proc/self/statm");
  std::int64_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE);
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
  const std::string library = std::string(TEMPER_SOURCE_DIR) + "/reward/library/";
  ScriptSpeed("sum.lua", ReadScript(library + "sum.lua"));
  ScriptSpeed("smallest script", "function score(s) return #s.completion end");
  return 0;
}

int RunAttacks(int times) {
  const auto attacks = Attacks(std::string(TEMPER_SOURCE_DIR) + "/tests/reward/attacks");
  auto zygote = std::make_shared<Zygote>(HostOptions().zygote_argv);
  std::vector<double> ends;
  std::map<std::string, double> worst;
  int unexpected = 0, changed = 0, outside = 0, honest = 0;
  std::int64_t before = 0;
  for (int round = 0; round < times; ++round) {
    if (round == 1) before = Resident();  // the first round fills pools that stay
    for (const Attack& attack : attacks) {
      HostOptions options;
      options.functions = {Script(kHonestScript, "before"), Script(attack.script, "attack"),
                           Script(kHonestScript, "after")};
      options.limits.timeout_s = 0.1;
      options.zygote = zygote;
      RewardHost host(std::move(options));
      const ScoreResult result = host.ScoreGroup(std::vector{Sample("42", "42")})[0];
      for (const ScorePart& part : result.parts) {
        if (part.name == "attack") {
          const double ms = static_cast<double>(part.micros) / 1000;
          ends.push_back(ms);
          worst[attack.name] = std::max(worst[attack.name], ms);
          outside += part.message.find("signal 31") != std::string::npos;
          if (Expected(attack, part.status, part.value.value_or(-1)) ||
              EndedByTheClock(attack, part.status)) {
            continue;
          }
          ++unexpected;
          std::printf("%s: %s %s\n", attack.name.c_str(), part.status.c_str(),
                      part.message.c_str());
        } else if (part.name == "before" || part.name == "after") {
          ++honest;
          changed += part.value != kHonestScore;
        }
      }
    }
  }
  std::sort(ends.begin(), ends.end());
  const auto at = [&](double share) {
    return ends[static_cast<std::size_t>(share * static_cast<double>(ends.size() - 1))];
  };
  for (const auto& [name, ms] : worst)
    std::printf("  %-28s worst end %7.1f ms\n", name.c_str(), ms);
  std::printf("%zu attacks x %d, deadline 100 ms\n", attacks.size(), times);
  std::printf("end: median %.1f ms, p99 %.1f ms, worst %.1f ms\n", at(0.5), at(0.99), ends.back());
  std::printf("ended as expected: %zu of %zu\n", ends.size() - static_cast<std::size_t>(unexpected),
              ends.size());
  std::printf("honest rewards changed: %d of %d\n", changed, honest);
  std::printf("system calls outside the list: %d\n", outside);
  std::printf("host memory growth after round 1: %.2f MiB\n",
              static_cast<double>(Resident() - before) / 1048576);
  return unexpected == 0 && changed == 0 && outside == 0 ? 0 : 1;
}

}  // namespace
}  // namespace temper::reward

int main(int argc, char** argv) {
  using namespace temper::reward;
  const std::string command = argc > 1 ? argv[1] : "";
  if (command == "reward-zygote") return ZygoteMain(kZygoteFd);
  if (command == "speed") return Speed();
  if (command == "attacks") return RunAttacks(argc > 2 ? std::atoi(argv[2]) : 20);
  std::fprintf(stderr, "usage: reward_bench speed | attacks [TIMES]\n");
  return 2;
}
