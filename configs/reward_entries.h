#pragma once
// The entries of `rewards`: what scores a completion, and with which weight.
#include <string>
#include <vector>

#include "configs/config.h"

namespace temper::configs {

/// Gives "" or what is wrong with the list.
std::string ReadRewards(const Json& list, std::vector<RewardFunction>* out);

/// The list that reads back the same.
Json WriteRewards(const std::vector<RewardFunction>& rewards);

/// What the entry names: the script's path, the rule, the model's folder or the remote's endpoint.
const std::string& SourceOf(const RewardFunction& reward);

/// The name of an entry that gives none: a file's stem, the rule, the model's folder, "remote".
std::string DefaultName(const RewardFunction& reward);

}  // namespace temper::configs
