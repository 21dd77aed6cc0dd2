#pragma once
// A task without a dataset: one script makes the prompts and scores the completions.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "reward/sample.h"

namespace temper::reward {

struct TaskOptions {
  std::uint64_t seed = 0;
  int heldout = 500;  // rows that the training split must not have
  Limits limits;
  std::vector<std::string> zygote_argv = {"/proc/self/exe", "reward-zygote"};
};

/// Rows of prompts(rng, n), JSON objects. The same options give the same rows, and more rows begin
/// with the fewer. UserError "script:line: message" when the script makes none.
std::vector<std::string> HeldoutRows(const std::string& script, const TaskOptions& options,
                                     int count);

/// An endless stream of training rows, JSON objects: without the prompts of the first `heldout`
/// held-out rows. The text of the script is read once. Starts a sandbox: one owner, one thread.
class TaskRows {
 public:
  /// UserError "script:line: message" when the script makes no rows.
  TaskRows(const std::string& script, const TaskOptions& options);
  TaskRows(TaskRows&&) noexcept;
  TaskRows& operator=(TaskRows&&) noexcept;
  ~TaskRows();

  /// UserError when the script knows no prompt that is not held out.
  std::string Next();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The first `count` of TaskRows.
std::vector<std::string> TrainRows(const std::string& script, const TaskOptions& options,
                                   int count);

}  // namespace temper::reward
