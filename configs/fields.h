#pragma once
// The table of settings: one row a key, used for reading, writing, help and suggestions alike.
#include <functional>
#include <string>
#include <vector>

#include "configs/config.h"

namespace temper::configs {

struct Field {
  std::string key;      // "grpo.epsilon": the path in the file and in the structs
  std::string type;     // "number", "integer", "string", ...
  std::string range;    // "in (0, 1)", "one of token, sequence"; "" = any
  std::string meaning;  // for people
  /// Gives "" or what is wrong: "1.2 must be in (0, 1)". Null sets the default.
  std::function<std::string(Config&, const Json&)> set;
  std::function<Json(const Config&)> get;
};

/// In the order of the structs.
const std::vector<Field>& Fields();

/// "; did you mean \"grpo.epsilon\"?" for the key nearest to `key`, "" when none is near.
std::string Suggestion(const std::string& key);

/// Settings that need or exclude one another; both throw UserError "WHERE: key: found; the rule;
/// what to do".
void CheckGrpo(const Grpo& grpo, const std::string& where);
void CheckJob(const Config& config, Job job, const std::string& where);

}  // namespace temper::configs
