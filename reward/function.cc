#include "reward/function.h"

#include <sodium.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "configs/error.h"
#include "configs/reward_entries.h"
#include "engine/model_config.h"
#include "reward/rules.h"
#include "reward/sandbox.h"
#include "wire/endpoint.h"

namespace temper::reward {

std::string Sha256Hex(const std::string& text) {
  unsigned char hash[crypto_hash_sha256_BYTES];
  crypto_hash_sha256(hash, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  char hex[2 * sizeof hash + 1];
  sodium_bin2hex(hex, sizeof hex, hash, sizeof hash);
  return hex;
}

std::string ReadScript(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) throw UserError(path + ": " + std::strerror(errno) + "; give a Lua file");
  // One byte more than allowed tells a file that is too long.
  std::string text(kMaxScriptBytes + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  const bool failed = std::ferror(file) != 0;
  std::fclose(file);
  if (failed) throw UserError(path + ": it cannot be read; give a Lua file");
  if (text.size() > kMaxScriptBytes) {
    throw UserError(path + ": a script has at most 65536 bytes; move data into the dataset's rows");
  }
  return text;
}

FunctionSpec MakeFunction(const configs::RewardFunction& entry, const std::string& text) {
  FunctionSpec spec;
  spec.weight = entry.weight;
  if (!entry.model.empty() || !entry.remote.empty()) {
    // What can be told without reading weights or asking anybody.
    if (!entry.model.empty()) engine::ReadModelConfig(entry.model, /*scalar_head=*/true);
    if (!entry.remote.empty()) wire::CheckConnect(entry.remote, "");
    spec.model = entry.model;
    spec.dtype = entry.dtype;
    spec.remote = entry.remote;
    spec.timeout_s = entry.timeout_s;
    spec.retries = entry.retries;
    spec.name = entry.name.empty() ? configs::DefaultName(entry) : entry.name;
    return spec;
  }
  if (entry.script.empty()) {
    if (FindRule(entry.rule) == nullptr) {
      throw UserError("rewards: there is no rule '" + entry.rule + "'; there are " + RuleNames());
    }
    spec.rule = entry.rule;
    spec.options = entry.options;
    spec.name = entry.name.empty() ? configs::DefaultName(entry) : entry.name;
    return spec;
  }
  if (text.empty()) {
    throw UserError(entry.script +
                    ":1: the script is empty; it must define function score(sample)");
  }
  const Outcome syntax = CheckSyntax(entry.script, text);
  if (syntax.status != Status::kOk) {
    throw UserError(entry.script + ":" + std::to_string(syntax.line) + ": " + syntax.message);
  }
  spec.path = entry.script;
  spec.script = text;
  spec.sha256 = Sha256Hex(text);
  spec.name = entry.name.empty() ? configs::DefaultName(entry) : entry.name;
  return spec;
}

std::vector<FunctionSpec> LoadFunctions(const std::vector<configs::RewardFunction>& entries) {
  std::vector<FunctionSpec> specs;
  for (const configs::RewardFunction& entry : entries) {
    specs.push_back(
        MakeFunction(entry, entry.script.empty() ? std::string() : ReadScript(entry.script)));
  }
  return specs;
}

void CheckScripts(const std::vector<configs::RewardFunction>& entries,
                  const configs::Reward& limits) {
  HostOptions host;
  host.limits = {limits.timeout_s, limits.max_instructions, limits.memory_mib};
  for (FunctionSpec& function : LoadFunctions(entries)) {
    if (function.model.empty() && function.remote.empty()) {
      host.functions.push_back(std::move(function));
    }
  }
  if (!host.functions.empty()) RewardHost(std::move(host)).Check();
}

FunctionSpec ParseRewardArgument(const std::string& argument) {
  configs::RewardFunction entry;
  if (argument.compare(0, 5, "rule:") == 0) {
    entry.rule = argument.substr(5);
    return MakeFunction(entry, "");
  }
  if (argument.compare(0, 6, "model:") == 0) {
    entry.model = argument.substr(6);
    return MakeFunction(entry, "");
  }
  if (argument.compare(0, 6, "tcp://") == 0 || argument.compare(0, 6, "ipc://") == 0) {
    entry.remote = argument;
    return MakeFunction(entry, "");
  }
  entry.script = argument;
  return MakeFunction(entry, ReadScript(argument));
}

}  // namespace temper::reward
