#pragma once
// Scores groups with the configured reward functions, each in a sandbox of its own, and keeps the
// clock.
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "reward/sample.h"

namespace temper::reward {

/// One entry of the config's `rewards`: a script, a rule, a model or a remote.
struct FunctionSpec {
  std::string name;     // of its part; unique
  std::string path;     // of the script, shown in messages; otherwise ""
  std::string script;   // the text, or
  std::string rule;     // a rule's name, or
  std::string options;  // of the rule, a JSON object; "" = none
  double weight = 1.0;
  std::string sha256;          // of the script's text; otherwise ""
  std::string model;           // a reward model's folder, or
  std::string dtype = "fp32";  // of the model
  std::string remote;          // an endpoint
  double timeout_s = 10;       // of the remote, a try
  int retries = 3;             // of the remote
};

/// Path and text of each script of a run.
using ScriptTexts = std::vector<std::pair<std::string, std::string>>;

class Zygote;  // reward/zygote.h

struct HostOptions {
  std::vector<FunctionSpec> functions;
  Limits limits;
  /// How the functions' scores become one: `sum` (weighted), or `normalize_then_sum` (GDPO: each
  /// function's scores are first brought to mean 0 and standard deviation 1 inside the group).
  std::string aggregation = "sum";
  bool trace = false;     // scripts get print(), outcomes what was printed and where time went
  int model_threads = 1;  // of reward models
  double start_timeout_s = 30;  // for a fresh sandbox to answer
  std::vector<std::string> zygote_argv = {"/proc/self/exe", "reward-zygote"};
  std::shared_ptr<Zygote> zygote;  // one started before; null = start one by zygote_argv
};

/// What one function gave: its score as `NAME`, each other number of its table as `NAME/FIELD` with
/// weight 0.
struct ScorePart {
  std::string name;
  std::optional<double> value;
  double weight = 1.0;
  std::string status, message;
  int line = 0;
  std::string script_sha256;
  std::int64_t micros = 0;
  std::int64_t instructions = 0;
  Trace trace;
};

struct ScoreResult {
  /// The weighted sum over the functions that apply, of their scores or of the scores normalised in
  /// the group. None when a function failed (a part of a sum is no score) or when none applies.
  std::optional<double> score;
  std::string status;  // the first failure in the functions' order, else not_applicable if none
                       // applies, else ok
  std::vector<ScorePart> parts;
};

/// One owner, one thread. A hanging, crashing or lying script costs its own sample and nobody
/// else's: the sandbox is killed at most timeout_s after the sample before it was answered, and the
/// next sample gets a new one.
class RewardHost {
 public:
  /// Starts the zygote unless one is given, before any model's threads. UserError for no function,
  /// two of one name, an unknown rule, a weight or limit out of range, a model or an endpoint that
  /// cannot be; MachineError when no process can be started.
  explicit RewardHost(HostOptions options);
  RewardHost(RewardHost&&) noexcept;
  RewardHost& operator=(RewardHost&&) noexcept;
  ~RewardHost();

  /// Scores the samples of one group, in order. Script failures are statuses; MachineError when no
  /// sandbox starts.
  std::vector<ScoreResult> ScoreGroup(std::span<const SampleInput> samples);

  /// Scripts of these paths score by these texts from now on, which have been checked.
  void UseScripts(const ScriptTexts& files);

  /// Runs each script's chunk in a sandbox. UserError "path:line: message" for the first that fails
  /// or has no score().
  void Check();

  /// What the machine lacks of a sandbox's isolation, "" = nothing. Known after the first sandbox.
  const std::string& missing_isolation() const;
  /// Sandboxes started so far.
  int spawned() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::reward
