#pragma once
// One reward function run on samples, inside the process that may be killed for it.
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "configs/json.h"
#include "reward/sample.h"

namespace temper::reward {

/// A Lua script or the name of a rule.
struct Job {
  std::string name;    // shown in messages: a script's path or its file name
  std::string script;  // the text; "" if it is a rule
  std::string rule;
  std::string options;  // of the rule, a JSON object; "" = none
  bool trace = false;   // a script gets print(), its outcomes what was printed and where time went
  Limits limits;
};

constexpr std::size_t kMaxScriptBytes = std::size_t{64} << 10;

class LuaScript;  // reward/script.h
struct Rule;      // reward/rules.h

/// A job made ready. Never throws for anything a script does; it may hang inside a C function,
/// crash, or be killed: use it in a process that its owner watches.
class Function {
 public:
  explicit Function(Job job);
  Function(Function&&) noexcept;
  ~Function();

  /// ok, or why the chunk failed; a rule: ok if there is one of that name and it knows the options.
  const Outcome& loaded() const { return loaded_; }
  bool scores_groups() const;
  Outcome Score(const SampleInput& sample);
  std::vector<Outcome> ScoreGroup(std::span<const SampleInput> samples);
  /// Rows of a task script; a rule has none.
  Outcome Prompts(std::uint64_t seed, std::uint64_t batch, int n, std::vector<std::string>* rows);

 private:
  Outcome ScoreRule(const SampleInput& sample) const;

  Job job_;
  std::unique_ptr<LuaScript> script_;
  const Rule* rule_ = nullptr;
  Json options_ = Json::object();
  Outcome loaded_;
};

/// The same for one sample.
Outcome RunFunction(const Job& job, const SampleInput& sample);

/// Compiles without running (text only, at most 64 KiB): ok or script_error with its line.
Outcome CheckSyntax(const std::string& name, const std::string& script);

}  // namespace temper::reward
