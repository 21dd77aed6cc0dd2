#include "configs/reward_entries.h"

#include <array>
#include <cmath>
#include <filesystem>

namespace temper::configs {
namespace {

struct Source {
  const char* key;
  std::string RewardFunction::*text;
};
constexpr std::array<Source, 4> kSources = {{{"script", &RewardFunction::script},
                                             {"rule", &RewardFunction::rule},
                                             {"model", &RewardFunction::model},
                                             {"remote", &RewardFunction::remote}}};

std::string Must(const Json& value, const std::string& rule) {
  return Brief(value) + " must be " + rule;
}

/// Gives "" or what is wrong.
std::string ReadText(const Json& value, std::string* out) {
  if (value.is_null()) return "";
  if (!value.is_string()) return Must(value, "a string");
  *out = value.get<std::string>();
  return "";
}

std::string ReadNumber(const Json& value, double lo, double hi, const char* rule, double* out) {
  const double x = value.is_number() ? value.get<double>() : std::nan("");
  if (!(x >= lo && x <= hi)) return Must(value, rule);
  *out = x;
  return "";
}

std::string ReadField(const std::string& key, const Json& value, RewardFunction* reward) {
  for (const Source& source : kSources) {
    if (key == source.key) return ReadText(value, &(reward->*source.text));
  }
  if (key == "name") return ReadText(value, &reward->name);
  if (key == "weight") return ReadNumber(value, -1e30, 1e30, "a finite number", &reward->weight);
  if (key == "timeout_s") {
    return ReadNumber(value, 1e-3, 3600, "a number from 0.001 to 3600", &reward->timeout_s);
  }
  if (key == "retries") {
    if (!value.is_number_integer() || value < 0 || value > 100) {
      return Must(value, "an integer from 0 to 100");
    }
    reward->retries = value.get<int>();
    return "";
  }
  if (key == "dtype") {
    const std::string wrong = ReadText(value, &reward->dtype);
    if (!wrong.empty()) return wrong;
    const std::string& d = reward->dtype;
    const bool known = d == "fp32" || d == "bf16" || d == "fp8" || d == "fp8-w8a8";
    return known ? "" : Must(value, "one of fp32, bf16, fp8, fp8-w8a8");
  }
  if (key == "options") {
    if (value.is_null()) return "";
    if (!value.is_object()) return Must(value, "an object");
    reward->options = value.empty() ? "" : value.dump();
    return "";
  }
  return "unknown setting; known are script, rule, model, remote, name, weight, options, dtype, "
         "timeout_s, retries";
}

/// Settings that belong to another kind of entry.
std::string CheckEntry(const Json& item, const RewardFunction& reward) {
  int sources = 0;
  for (const Source& source : kSources) sources += (reward.*source.text).empty() ? 0 : 1;
  if (sources != 1) {
    return Must(item, "given one of \"script\", \"rule\", \"model\" and \"remote\"");
  }
  if (reward.rule.empty() && !reward.options.empty()) {
    return Must(item, "without \"options\": they belong to rules; a script reads its row");
  }
  if (reward.model.empty() && item.contains("dtype")) {
    return Must(item, "without \"dtype\": it belongs to models");
  }
  for (const char* key : {"timeout_s", "retries"}) {
    if (reward.remote.empty() && item.contains(key)) {
      return Must(item, "without \"" + std::string(key) +
                            "\": it belongs to remotes; scripts have reward.timeout_s");
    }
  }
  return "";
}

}  // namespace

std::string ReadRewards(const Json& list, std::vector<RewardFunction>* out) {
  if (!list.is_array()) {
    return Must(list, "a list of {\"script\", \"rule\", \"model\" or \"remote\", \"weight\"}");
  }
  out->clear();
  for (const Json& item : list) {
    if (!item.is_object()) {
      return Must(item, "an object with \"script\", \"rule\", \"model\" or \"remote\"");
    }
    RewardFunction reward;
    for (const auto& [key, value] : item.items()) {
      const std::string wrong = ReadField(key, value, &reward);
      if (!wrong.empty()) return key + ": " + wrong;
    }
    const std::string wrong = CheckEntry(item, reward);
    if (!wrong.empty()) return wrong;
    out->push_back(std::move(reward));
  }
  return "";
}

Json WriteRewards(const std::vector<RewardFunction>& rewards) {
  Json list = Json::array();
  for (const RewardFunction& reward : rewards) {
    Json item = Json::object();
    for (const Source& source : kSources) {
      if (!(reward.*source.text).empty()) item[source.key] = reward.*source.text;
    }
    item["name"] = reward.name;
    item["weight"] = reward.weight;
    if (!reward.options.empty()) item["options"] = Json::parse(reward.options);
    if (!reward.model.empty()) item["dtype"] = reward.dtype;
    if (!reward.remote.empty()) {
      item["timeout_s"] = reward.timeout_s;
      item["retries"] = reward.retries;
    }
    list.push_back(item);
  }
  return list;
}

const std::string& SourceOf(const RewardFunction& reward) {
  for (const Source& source : kSources) {
    if (!(reward.*source.text).empty()) return reward.*source.text;
  }
  return reward.script;
}

std::string DefaultName(const RewardFunction& reward) {
  namespace fs = std::filesystem;
  if (!reward.script.empty()) return fs::path(reward.script).stem().string();
  if (!reward.model.empty()) return fs::path(reward.model).filename().string();
  return reward.rule.empty() ? "remote" : reward.rule;
}

}  // namespace temper::configs
