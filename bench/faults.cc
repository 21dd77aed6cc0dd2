// Rollouts through drops, repetitions, reordering, cut connections and kills: faults [--rollouts N
// --seed S
// --max-lag L --drop P --repeat P] [--control early-ack or no-repeat]. Exit 1 if a promise does not
// hold.
#include <stdlib.h>

#include <cstdio>
#include <filesystem>

#include "bench/faults_commands.h"
#include "bench/lossy_run.h"
#include "cli/args.h"
#include "cli/program.h"
#include "configs/error.h"

namespace temper::bench {
namespace {

std::string Folder() {
  std::string folder = (std::filesystem::temp_directory_path() / "temper-faults-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) throw MachineError(folder + ": no folder");
  return folder;
}

LossyReport RunIn(const LossyOptions& options) {
  const std::string folder = Folder();
  const LossyReport report = LossyRun(options, folder);
  std::filesystem::remove_all(folder);
  return report;
}

void Print(const char* name, const LossyOptions& o, const LossyReport& r) {
  std::printf(
      "%s: %llu messages, %llu lost, %llu repeated, %llu connections cut, %llu actors and %llu "
      "learners killed; %.0f virtual seconds in %.1f s\n  rows %llu of %llu, extra %llu, missing "
      "%llu; dropped rows %llu; rollout messages received %llu (rows without de-duplication)\n  "
      "acknowledged %llu, of those lost %llu; sha256 %.16s%s%s\n",
      name, (unsigned long long)r.messages, (unsigned long long)r.drops,
      (unsigned long long)r.repeats, (unsigned long long)r.cuts, (unsigned long long)r.actor_kills,
      (unsigned long long)r.learner_kills, r.virtual_seconds, r.seconds, (unsigned long long)r.rows,
      (unsigned long long)o.rollouts, (unsigned long long)r.extra, (unsigned long long)r.missing,
      (unsigned long long)r.dropped_rows, (unsigned long long)r.received,
      (unsigned long long)r.acknowledged, (unsigned long long)r.lost, r.hash.c_str(),
      r.stuck.empty() ? "" : "; ended: ", r.stuck.c_str());
  std::fflush(stdout);
}

int Run(const std::vector<std::string>& arguments) {
  LossyOptions options;
  std::int64_t rollouts = 100'000, seed = 1;
  std::string control;
  cli::Args args("faults", "A run in virtual time over a network that fails.");
  args.Integer("--rollouts", "a multiple of 1,000", 1000, 100'000'000, &rollouts);
  args.Integer("--seed", "of the faults", 0, INT64_MAX, &seed);
  args.Integer("--max-lag", "as grpo.max_lag", 0, 64, &options.max_lag);
  args.Number("--drop", "share of messages lost", 0, 0.9, &options.drop);
  args.Number("--repeat", "share of messages repeated", 0, 0.9, &options.repeat);
  args.Text("--control", "WHAT", "break a promise: early-ack or no-repeat", &control);
  if (!args.Parse(arguments)) return 0;
  options.rollouts = static_cast<std::uint64_t>(rollouts);
  options.seed = static_cast<std::uint64_t>(seed);
  options.acknowledge_early = control == "early-ack";
  options.never_repeat = control == "no-repeat";
  if (options.never_repeat) {
    // Whoever leaves has its work done again by others: only losses are left.
    options.cuts_per_minute = options.actor_kills_per_minute = 0;
    options.learner_kills = 0;
  }
  const LossyReport faulty = RunIn(options);
  Print(control.empty() ? "faults" : control.c_str(), options, faulty);
  bool good = faulty.stuck.empty() && faulty.rows == options.rollouts && faulty.extra == 0 &&
              faulty.missing == 0 && faulty.lost == 0;
  if (options.max_lag == 0 && control.empty()) {
    LossyOptions calm = options;
    calm.drop = calm.repeat = calm.cuts_per_minute = calm.actor_kills_per_minute = 0;
    calm.learner_kills = 0;
    const LossyReport reference = RunIn(calm);
    Print("no faults", calm, reference);
    good = good && reference.hash == faulty.hash;
    std::printf("the same rows bit for bit: %s\n", reference.hash == faulty.hash ? "yes" : "NO");
  }
  return good ? 0 : 1;
}

int Main(const std::vector<std::string>& arguments) {
  const cli::Command command[] = {{"protocol", "rollouts through a failing network", Run},
                                  {"disk", "a run killed at every file call", RunDisk}};
  return cli::RunGroup("faults", "What faults cost.", command, arguments);
}

}  // namespace
}  // namespace temper::bench

int main(int argc, char** argv) {
  using namespace temper;
  try {
    return bench::Main({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "faults: %s\n", error.what());
    return 2;
  }
}
