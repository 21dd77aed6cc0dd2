#pragma once
// From an entry of the config's `rewards` to a function that can run, or an error before anything
// runs.
#include <string>
#include <vector>

#include "configs/config.h"
#include "reward/host.h"

namespace temper::reward {

/// SHA-256 of the text, 64 hex digits.
std::string Sha256Hex(const std::string& text);

/// The script's text. UserError when the file cannot be read or has more than 64 KiB.
std::string ReadScript(const std::string& path);

/// `text` is the script's content (unused for a rule). The name defaults to the file's stem or the
/// rule's name. UserError "path:line: message" when the script does not compile, or the rule does
/// not exist.
FunctionSpec MakeFunction(const configs::RewardFunction& entry, const std::string& text);

/// Reads the scripts of all entries from their paths.
std::vector<FunctionSpec> LoadFunctions(const std::vector<configs::RewardFunction>& entries);

/// Runs the scripts' chunks in sandboxes, as workers will: UserError "path:line: message" for one
/// that fails or has no score(). Models and remotes are left to the workers.
void CheckScripts(const std::vector<configs::RewardFunction>& entries,
                  const configs::Reward& limits);

/// `temper eval --reward`: a path, `rule:NAME`, `model:DIR`, or the endpoint of a remote.
FunctionSpec ParseRewardArgument(const std::string& argument);

}  // namespace temper::reward
