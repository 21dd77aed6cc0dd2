// faults disk: every file call of a run as a kill, as a power failure, as an error; and the
// controls that must fail.
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>

#include "bench/disk_faults.h"
#include "bench/faults_commands.h"
#include "cli/args.h"
#include "configs/error.h"

namespace temper::bench {
namespace {

DiskFaultReport Try(const char* name, DiskFault fault, const DiskFaultOptions& options) {
  // What a disk keeps is worked out, not tried: memory serves.
  std::string folder =
      access("/dev/shm", W_OK) == 0 ? "/dev/shm" : std::filesystem::temp_directory_path().string();
  folder += "/temper-disk-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) throw MachineError(folder + ": no folder");
  const auto began = std::chrono::steady_clock::now();
  const DiskFaultReport r = TryDisk(fault, options, folder);
  std::filesystem::remove_all(folder);
  std::printf(
      "%s, %s%s: %lld file calls, %lld points: acknowledged rollouts lost %lld, trained "
      "twice %lld, differing ends %lld, broken %lld",
      name, options.resumed ? "a resumed run" : "a fresh run",
      options.run.max_lag > 0 ? " with max_lag 1" : "", (long long)r.calls, (long long)r.points,
      (long long)r.lost, (long long)r.twice, (long long)r.differ, (long long)r.broken);
  if (fault == DiskFault::kFail) {
    std::printf(
        "; stopped in order %lld, in disorder %lld, acknowledgements behind a failed fsync "
        "%lld",
        (long long)r.stopped, (long long)r.disorderly, (long long)r.late_acks);
  }
  std::printf(" (%.1f s)\n",
              std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  for (const std::string& what : r.first) std::printf("  %s\n", what.c_str());
  std::fflush(stdout);
  return r;
}

/// Each must be seen to fail.
bool Controls(DiskFaultOptions options) {
  options.sample = 60;
  DiskFaultOptions early = options, checkpoints = options, database = options, place = options;
  early.run.acknowledge_early = true;
  checkpoints.never_synced = "checkpoints";
  database.never_synced = "trajectories.db-wal";
  place.run.forgets_its_place = true;
  bool good =
      !Try("control: acknowledged before the commit, kill -9", DiskFault::kKill, early).good();
  good = !Try("control: checkpoints without fsync, power loss", DiskFault::kPower, checkpoints)
              .good() &&
         good;
  good =
      !Try("control: a log without fsync, power loss", DiskFault::kPower, database).good() && good;
  good = Try("control: a place forgotten, kill -9", DiskFault::kKill, place).twice > 0 && good;
  std::printf("controls: %s\n", good ? "each fails, as it must" : "ONE DID NOT FAIL");
  return good;
}

}  // namespace

int RunDisk(const std::vector<std::string>& arguments) {
  DiskFaultOptions options;
  std::int64_t seed = 1;
  cli::Args args("faults disk", "A run killed, cut off its power and failed by its disk.");
  args.Integer("--sample", "points of each kind, seeded; 0 = every one", 0, 1'000'000,
               &options.sample);
  args.Integer("--seed", "of the sample and of the images", 0, INT64_MAX, &seed);
  if (!args.Parse(arguments)) return 0;
  options.seed = static_cast<std::uint64_t>(seed);
  bool good = true;
  for (const bool resumed : {false, true}) {
    for (const int max_lag : {0, 1}) {
      DiskFaultOptions now = options;
      now.resumed = resumed;
      now.run.max_lag = max_lag;
      good = Try("kill -9", DiskFault::kKill, now).good() && good;
      good = Try("power loss", DiskFault::kPower, now).good() && good;
      if (max_lag == 0) good = Try("failing disk", DiskFault::kFail, now).good() && good;
    }
  }
  good = Controls(options) && good;
  return good ? 0 : 1;
}

}  // namespace temper::bench
