#include "bench/reward_attacks.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <vector>

#include "reward/zygote.h"
#include "tests/reward/attacks.h"
#include "tests/reward/lying_zygote.h"

namespace temper::reward {
namespace {

constexpr double kDeadlineMs = 100;

/// Resident bytes of this process.
std::int64_t Resident() {
  std::ifstream file("/proc/self/statm");
  std::int64_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

/// What all ends together say.
class Tally {
 public:
  void Attack(const std::string& name, const ScorePart& part, bool expected) {
    const double ms = static_cast<double>(part.micros) / 1000;
    ends_.push_back(ms);
    worst_[name] = std::max(worst_[name], ms);
    outside_ += part.message.find("signal 31") != std::string::npos;
    if (expected) return;
    if (part.status == "timeout") {  // a busy machine: the clock came before its own limit
      ++clock_;
      return;
    }
    ++unexpected_;
    std::printf("%s: %s %s\n", name.c_str(), part.status.c_str(), part.message.c_str());
  }
  void Honest(const ScorePart& part) {
    ++honest_;
    if (part.value == kHonestScore) return;
    // Without a core for 100 ms: a status, as it should be, and no reward.
    ++(part.status == "timeout" ? late_ : changed_);
  }
  void Part(const ScorePart& part) {
    if (part.name == "before" || part.name == "after") Honest(part);
  }
  int Print(int times, std::int64_t growth) {
    std::sort(ends_.begin(), ends_.end());
    for (const auto& [name, ms] : worst_)
      std::printf("  %-28s worst end %7.1f ms\n", name.c_str(), ms);
    std::printf("%zu attacks x %d, deadline %.0f ms\n", worst_.size(), times, kDeadlineMs);
    std::printf("ended by: median %.1f ms, p99 deadline + %.1f ms, worst deadline + %.1f ms\n",
                At(0.5), std::max(0.0, At(0.99) - kDeadlineMs),
                std::max(0.0, ends_.back() - kDeadlineMs));
    std::printf("ended as expected: %zu of %zu; by the clock before their own limit: %d\n",
                ends_.size() - static_cast<std::size_t>(unexpected_ + clock_), ends_.size(),
                clock_);
    std::printf("honest rewards changed: %d of %d; that had no core for 100 ms: %d\n", changed_,
                honest_, late_);
    std::printf("system calls outside the list: %d\n", outside_);
    std::printf("host memory growth after round 1: %.2f MiB\n",
                static_cast<double>(growth) / 1048576);
    return unexpected_ == 0 && changed_ == 0 && outside_ == 0 ? 0 : 1;
  }

 private:
  double At(double share) const {
    return ends_[static_cast<std::size_t>(share * static_cast<double>(ends_.size() - 1))];
  }
  std::vector<double> ends_;
  std::map<std::string, double> worst_;
  int unexpected_ = 0, clock_ = 0, changed_ = 0, late_ = 0, outside_ = 0, honest_ = 0;
};

std::vector<ScorePart> Parts(std::vector<FunctionSpec> functions,
                             const std::shared_ptr<Zygote>& zygote) {
  HostOptions options;
  options.functions = std::move(functions);
  options.limits.timeout_s = kDeadlineMs / 1000;
  options.zygote = zygote;
  return RewardHost(std::move(options)).ScoreGroup(std::vector{Sample("42", "42")})[0].parts;
}

void RunScript(const Attack& attack, const std::shared_ptr<Zygote>& zygote, Tally* tally) {
  for (const ScorePart& part :
       Parts({Script(kHonestScript, "before"), Script(attack.script, "attack"),
              Script(kHonestScript, "after")},
             zygote)) {
    if (part.name == "attack") {
      tally->Attack(attack.name, part, Expected(attack, part.status, part.value.value_or(-1)));
    }
    tally->Part(part);
  }
}

/// Sandboxes that forge frames, flood, die or are stopped; the honest ones have another zygote.
void RunLiar(const Liar& liar, const std::shared_ptr<Zygote>& honest, Tally* tally) {
  const auto zygote = std::make_shared<Zygote>(
      std::vector<std::string>{"/proc/self/exe", "lying-zygote", liar.how});
  for (const char* const name : {"before", "L37", "after"}) {
    const bool lies = std::string(name) == "L37";
    const ScorePart part = Parts({Script(kHonestScript, name)}, lies ? zygote : honest)[0];
    if (lies) tally->Attack(std::string("L37_") + liar.how, part, part.status == liar.status);
    tally->Part(part);
  }
}

}  // namespace

int RunAttacks(int times) {
  const auto attacks = Attacks(std::string(TEMPER_SOURCE_DIR) + "/tests/reward/attacks");
  const auto zygote = std::make_shared<Zygote>(HostOptions().zygote_argv);
  Tally tally;
  std::int64_t before = 0;
  for (int round = 0; round < times; ++round) {
    if (round == 1) before = Resident();  // the first round fills pools that stay
    for (const Attack& attack : attacks) RunScript(attack, zygote, &tally);
    for (const Liar& liar : kLiars) RunLiar(liar, zygote, &tally);
  }
  return tally.Print(times, times > 1 ? Resident() - before : 0);
}

}  // namespace temper::reward
