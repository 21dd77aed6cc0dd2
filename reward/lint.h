#pragma once
// Mistakes in a reward script that a look at its text or a hostile completion brings to light.
#include <string>
#include <vector>

#include "reward/host.h"

namespace temper::reward {

struct Finding {
  std::string kind;  // syntax | chunk | global | forbidden | trial
  int line = 0;      // 0: none
  std::string message;
};

/// Names that nothing defines, functions that the sandbox does not have, fields that a library does
/// not have. Of the text alone: a name that is set anywhere counts as known.
std::vector<Finding> LintText(const std::string& script);

/// The text, the chunk, then `score` on hostile completions: empty, 1 MB, invalid UTF-8, zero
/// bytes, cut off, repeated, with and without an answer. `like` gives prompt, row and answer.
std::vector<Finding> Lint(const FunctionSpec& function, const HostOptions& options,
                          const SampleInput& like);

}  // namespace temper::reward
