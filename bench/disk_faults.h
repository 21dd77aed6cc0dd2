#pragma once
// A stand-in run against its disk: killed at every file call, started again from what a power
// failure may leave, and told that its disk fails.
#include <cstdint>
#include <string>
#include <vector>

#include "bench/stand_in.h"

namespace temper::bench {

struct DiskFaultOptions {
  StandInOptions run;        // its folder is not used
  bool resumed = false;      // the calls of a run that goes on from the middle, not of a fresh one
  std::string never_synced;  // control: paths that contain it are not fsynced
  std::int64_t sample = 0;   // so many points, seeded; 0 = all
  std::uint64_t seed = 1;
  int images = 3;  // seeded power-loss images a point, beside the four regular ones
};

struct DiskFaultReport {
  std::int64_t calls = 0;         // file calls of the run
  std::int64_t points = 0;        // processes killed, images or failures tried
  std::int64_t acknowledged = 0;  // at the most
  std::int64_t lost = 0;          // acknowledged rollouts that no restart finds
  std::int64_t twice = 0;         // rollouts trained again in the surviving history
  std::int64_t differ =
      0;  // points whose end has another last link than the run that nothing befell
  std::int64_t broken = 0;      // points whose end `runs verify` rejects, or that could not go on
  std::int64_t late_acks = 0;   // acknowledgements behind a failed fsync
  std::int64_t stopped = 0;     // failures that ended the run (in order: one line, exit 3)
  std::int64_t disorderly = 0;  // that ended it in another way
  std::vector<std::string> first;  // what went wrong at the first few points
  bool good() const {
    return points > 0 && lost + twice + differ + broken + late_acks + disorderly == 0;
  }
};

enum class DiskFault { kKill, kPower, kFail };

/// Works in `folder`, which must be there and empty.
DiskFaultReport TryDisk(DiskFault fault, const DiskFaultOptions& options,
                        const std::string& folder);

}  // namespace temper::bench
