#pragma once
// Answer checks in C++: `rules.NAME(completion, answer, options)` in a script, {"rule": NAME} in a
// config.
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "configs/json.h"

namespace temper::reward {

struct RuleInput {
  std::string_view completion;  // any bytes
  std::optional<std::string_view> answer;
  std::span<const std::int32_t> ids;  // of the completion; empty where a script gave a text only
  std::string_view finish_reason;     // stop | length | "" = unknown
  const Json* options = nullptr;      // an object; null = none
};

struct Rule {
  const char* name;
  bool needs_answer;                 // without one it is not applicable
  std::vector<const char*> options;  // the names it knows
  /// In [0, 1] but for the penalties (docs/rewards.md); none = not applicable. Throws
  /// std::invalid_argument for options that cannot be.
  std::optional<double> (*score)(const RuleInput&);
};

/// All, by name. What each does: docs/rewards.md.
const std::vector<Rule>& Rules();

/// Null if there is none of that name.
const Rule* FindRule(std::string_view name);

/// Names of all rules, comma-separated.
std::string RuleNames();

std::optional<double> RunRule(const Rule& rule, const RuleInput& input);
/// Without ids and options.
std::optional<double> RunRule(const Rule& rule, std::string_view completion,
                              std::string_view answer);

/// Throws std::invalid_argument for an unknown name, a wrong type or range, a missing one.
void CheckRuleOptions(const Rule& rule, const Json& options);

/// What a call costs a script, in instructions: about the time it takes.
std::int64_t RuleCost(const Rule& rule, const RuleInput& input);

// Options of a rule's input; std::invalid_argument for a wrong type or range.
double NumberOption(const RuleInput& input, const char* name, double otherwise, double lo,
                    double hi);
std::int64_t IntegerOption(const RuleInput& input, const char* name,
                           std::optional<std::int64_t> otherwise, std::int64_t lo, std::int64_t hi);
std::string TextOption(const RuleInput& input, const char* name, const std::string& otherwise);
bool FlagOption(const RuleInput& input, const char* name, bool otherwise);

}  // namespace temper::reward
