#pragma once
// The role `temper reward-worker`: takes groups from a learner, gives their scores back.
#include <atomic>
#include <string>
#include <vector>

namespace temper::reward {

struct WorkerOptions {
  std::string endpoint;  // the learner's
  std::string keys;      // CURVE key file; "" = none
  std::string name;      // w1; unique in the run
  std::vector<std::string> zygote_argv = {"/proc/self/exe", "reward-zygote"};
  double first_timeout_s = 300;  // for the learner to answer at all; then its own peer_timeout_s
  const std::atomic<bool>* stop = nullptr;  // set by a signal handler: say goodbye and return
};

/// Serves until the learner says goodbye (returns 0, or 3 when the run failed) or `stop` is set
/// (0). Must be called before the process has threads: the zygote is started first, then a scoring
/// thread, then the socket; the socket's thread alone speaks ZeroMQ and keeps its heartbeat while a
/// script uses up its time. Throws MachineError when the learner is silent too long or no sandbox
/// can be started; UserError for a script or configuration that cannot work, and when the learner
/// does not want this worker.
int RunWorker(const WorkerOptions& options);

}  // namespace temper::reward
