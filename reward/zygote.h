#pragma once
// The process that forks sandboxes: started by exec before anything else runs, single-threaded for
// life.
#include <sys/types.h>

#include <string>
#include <vector>

namespace temper::reward {

/// The descriptor on which a zygote finds its host: `temper reward-zygote` is `return
/// ZygoteMain(kZygoteFd)`.
constexpr int kZygoteFd = 3;

/// Serves until the host closes its end, then kills every sandbox. Returns the exit code.
int ZygoteMain(int fd);

/// A forked sandbox. The descriptor is a stream of frames (reward/frames.h), non-blocking.
struct Sandbox {
  pid_t pid = -1;
  int fd = -1;
};

/// The host's side: starts a zygote by posix_spawn (never a plain fork), asks it for sandboxes.
class Zygote {
 public:
  /// argv[0] is run with the others as arguments, its control descriptor at kZygoteFd, stdin and
  /// stdout at /dev/null. MachineError when it cannot be started.
  explicit Zygote(const std::vector<std::string>& argv);
  Zygote(const Zygote&) = delete;
  ~Zygote();

  /// MachineError when the zygote is gone or cannot fork.
  Sandbox Spawn(int memory_mib);
  /// Kills the sandbox, closes its descriptor, waits for it. Returns how it ended in words, e.g.
  /// "killed by signal 11 (Segmentation fault)"; its own end counts, not our kill.
  std::string Reap(const Sandbox& sandbox);

 private:
  pid_t pid_ = -1;
  int fd_ = -1;
};

}  // namespace temper::reward
