#pragma once
// Child processes of the supervisor, and temper-learner, which lies beside this program.
#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/program.h"

namespace temper::cli {

/// This program's own path, and temper-learner's beside it. Throws MachineError if that is missing.
std::string ThisProgram();
std::string LearnerProgram();

/// Runs PROGRAM ARGS to its end: the exit code as Child gives it, and what it wrote to stdout and
/// stderr.
struct Outcome {
  int code = 0;
  std::string output;
};
Outcome RunAndRead(const std::string& program, const Arguments& args);

/// Becomes `temper-learner ARGS` (same pid): for subcommands that only forward. Does not return.
[[noreturn]] void ExecLearner(const Arguments& args);

/// The newest words of a log: what a dead process said.
std::string LastLine(const std::string& path);

/// One process that ends when this one does (PR_SET_PDEATHSIG). Ctrl-C on a terminal reaches only
/// this process, which then ends its children in order.
class Child {
 public:
  /// Starts PROGRAM ARGS; stdout and stderr are appended to these files, or are ours where "".
  /// `variables` are set over our environment. Throws MachineError.
  Child(std::string name, const std::string& program, const Arguments& args,
        const std::string& out_log, const std::string& err_log,
        const std::vector<std::pair<std::string, std::string>>& variables = {});
  Child(Child&& other) noexcept;
  ~Child();  // kills what still runs

  /// Waits without blocking. The exit code once it has ended; 128 + signal where a signal ended it.
  std::optional<int> Ended();
  int Wait();  // blocks until it has ended
  void Signal(int signal) const;
  const std::string& name() const { return name_; }
  double seconds() const;  // since it started

 private:
  std::string name_;
  pid_t pid_ = -1;
  std::optional<int> code_;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

}  // namespace temper::cli
