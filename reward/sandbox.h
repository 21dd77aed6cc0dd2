#pragma once
// One reward function run on one sample, inside the process that may be killed for it.
#include <string>

#include "reward/sample.h"

namespace temper::reward {

/// A Lua script or the name of a rule.
struct Job {
  std::string name;    // shown in messages: a script's path or its file name
  std::string script;  // the text; "" if it is a rule
  std::string rule;
  Limits limits;
};

constexpr std::size_t kMaxScriptBytes = std::size_t{64} << 10;

/// Runs the function. A fresh Lua state for each call: nothing a script keeps can reach the next
/// sample, and the same sample gives the same answer first and thousandth. The chunk itself and
/// score() have max_instructions each. Never throws for anything a script does; it may hang inside
/// a C function (a pattern match), crash, or be killed: call it in a process that its owner
/// watches.
Outcome RunFunction(const Job& job, const SampleInput& sample);

/// Runs only the chunk and looks for `score`: ok, or why not. A rule: ok if there is one of that
/// name.
Outcome RunCheck(const Job& job);

/// Compiles without running (text only, at most 64 KiB): ok or script_error with its line.
Outcome CheckSyntax(const std::string& name, const std::string& script);

}  // namespace temper::reward
