#include "configs/config.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>
#include <sstream>

#include "configs/aliases.h"
#include "configs/error.h"
#include "configs/fields.h"
#include "configs/reward_entries.h"

namespace temper::configs {
namespace {

namespace fs = std::filesystem;

/// Keys that came by --set, so that an error names the command line and not the file.
using Sets = std::set<std::string>;

std::vector<std::string> Split(const std::string& key) {
  std::vector<std::string> parts;
  std::stringstream in(key);
  for (std::string part; std::getline(in, part, '.');) parts.push_back(part);
  return parts;
}

Json ParseValue(const std::string& text) {
  try {
    return ParseJson(text, "--set");
  } catch (const UserError&) {
    return Json(text);  // a bare word is a string
  }
}

/// One `a.b=VALUE` into the tree; list items are named by their number.
void ApplySet(const std::string& set, Json* tree, Sets* sets) {
  const std::size_t equals = set.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw UserError("--set " + set + ": must look like key.path=VALUE");
  }
  const std::string key = set.substr(0, equals);
  Json* at = tree;
  std::string walked;
  for (const std::string& part : Split(key)) {
    if (at->is_array()) {
      const bool number = !part.empty() && part.size() < 7 &&
                          part.find_first_not_of("0123456789") == std::string::npos;
      if (!number || std::stoul(part) >= at->size()) {
        throw UserError("--set " + set + ": " + walked + " is a list of " +
                        std::to_string(at->size()) + "; \"" + part + "\" must be a number below");
      }
      at = &(*at)[std::stoul(part)];
    } else {
      if (at->is_null()) *at = Json::object();
      if (!at->is_object() || part.empty()) {
        throw UserError("--set " + set + ": " + walked + " holds no further keys");
      }
      at = &(*at)[part];
    }
    walked += (walked.empty() ? "" : ".") + part;
  }
  *at = ParseValue(set.substr(equals + 1));
  sets->insert(key);
}

/// TRL's flat names of the rollout correction, inside grpo.
const std::map<std::string, std::string>& FlatNames() {
  static const std::map<std::string, std::string> names = {
      {"vllm_importance_sampling_mode", "mode"},
      {"vllm_importance_sampling_clip_max", "clip_max"},
      {"vllm_importance_sampling_cap", "clip_max"},
      {"vllm_importance_sampling_clip_min", "clip_min"}};
  return names;
}

void ResolveFlatNames(Json* tree, const std::string& where) {
  if (!tree->contains("grpo") || !(*tree)["grpo"].is_object()) return;
  Json& grpo = (*tree)["grpo"];
  const std::string switch_key = "vllm_importance_sampling_correction";
  Json wanted;
  if (grpo.contains(switch_key)) {
    wanted = grpo[switch_key];
    grpo.erase(switch_key);
    if (!wanted.is_boolean() && !wanted.is_null()) {
      throw UserError(where + ": grpo." + switch_key + ": " + Brief(wanted) +
                      " must be true or false");
    }
  }
  for (const auto& [flat, name] : FlatNames()) {
    if (!grpo.contains(flat)) continue;
    Json& correction = grpo["rollout_correction"];
    if (correction.is_null()) correction = Json::object();
    if (!correction.is_object() || correction.contains(name)) {
      throw UserError(where + ": grpo." + flat + ": given twice, also as rollout_correction." +
                      name + "; keep one");
    }
    correction[name] = grpo[flat];
    grpo.erase(flat);
  }
  if (wanted.is_null()) return;
  Json& correction = grpo["rollout_correction"];
  if (correction.is_null()) correction = Json::object();
  if (wanted == false) {
    correction["mode"] = "none";
  } else {  // TRL's defaults
    if (!correction.contains("mode")) correction["mode"] = "sequence_mask";
    if (!correction.contains("clip_max")) correction["clip_max"] = 3.0;
  }
}

class TreeReader {
 public:
  TreeReader(const std::string& where, const Sets& sets, Config* config)
      : where_(where), sets_(sets), config_(config) {
    for (const Field& field : Fields()) {
      fields_[field.key] = &field;
      for (std::size_t dot = field.key.find('.'); dot != std::string::npos;
           dot = field.key.find('.', dot + 1)) {
        sections_.insert(field.key.substr(0, dot));
      }
    }
  }

  void Read(const Json& tree, const std::string& prefix) {
    for (const auto& [name, value] : tree.items()) {
      const std::string key = prefix.empty() ? name : prefix + "." + name;
      if (const auto field = fields_.find(key); field != fields_.end()) {
        const std::string wrong = field->second->set(*config_, value);
        if (!wrong.empty()) Fail(key, wrong);
      } else if (sections_.count(key) != 0) {
        if (value.is_null()) continue;
        if (!value.is_object()) Fail(key, Brief(value) + " must be an object of settings");
        Read(value, key);
      } else {
        Fail(key, "unknown setting" + Suggestion(key));
      }
    }
  }

 private:
  [[noreturn]] void Fail(const std::string& key, const std::string& wrong) const {
    const bool by_set = std::any_of(sets_.begin(), sets_.end(), [&](const std::string& set) {
      return set == key || set.rfind(key + ".", 0) == 0 || key.rfind(set + ".", 0) == 0;
    });
    throw UserError((by_set ? "--set" : where_) + ": " + key + ": " + wrong);
  }

  const std::string& where_;
  const Sets& sets_;
  Config* config_;
  std::map<std::string, const Field*> fields_;
  std::set<std::string> sections_;
};

std::size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t kept = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, kept});
    }
  }
  return row.back();
}

void ResolvePaths(const fs::path& folder, Config* config) {
  const auto resolve = [&](std::string* path) {
    if (path->empty()) return;
    std::string full = (folder / *path).lexically_normal().string();
    while (full.size() > 1 && full.back() == '/') full.pop_back();
    *path = full;
  };
  for (std::string* path :
       {&config->output_dir, &config->model, &config->data.train, &config->data.eval,
        &config->data.task, &config->wire.keys, &config->lora.adapter}) {
    resolve(path);
  }
  for (RewardFunction& reward : config->rewards) {
    resolve(&reward.script);
    resolve(&reward.model);
    if (reward.name.empty()) reward.name = DefaultName(reward);
  }
}

/// Adapters hold neither router biases nor MTP layers: unless the file says otherwise, those stay.
void DefaultsOfLora(const Json& tree, Config* config) {
  if (config->lora.r == 0) return;
  const auto given = [&](const char* section, const char* key) {
    return tree.contains(section) && tree[section].is_object() && tree[section].contains(key);
  };
  const auto rest = [&](const char* section, Optimizer* optimizer) {
    if (!given(section, "router_bias_update_speed")) optimizer->router_bias_update_speed = 0;
    if (!given(section, "mtp_loss_scale")) optimizer->mtp_loss_scale = 0;
  };
  rest("sft", &config->sft);
  rest("grpo", &config->grpo);
}

Config ReadTree(Json tree, const std::string& path, const std::vector<std::string>& sets, Job job) {
  if (!tree.is_object()) {
    throw UserError(path + ": " + Brief(tree) + " must be an object of settings");
  }
  Sets by_set;
  for (const std::string& set : sets) ApplySet(set, &tree, &by_set);
  ResolveFlatNames(&tree, path);
  ResolveAliases(&tree, path);
  Config config;
  TreeReader(path, by_set, &config).Read(tree, "");
  DefaultsOfLora(tree, &config);
  if (config.grpo.loss_type == "gspo") config.grpo.importance_sampling_level = "sequence";
  // A task is one file: what makes the prompts scores them, unless something else is named.
  if (config.rewards.empty() && !config.data.task.empty()) {
    config.rewards.emplace_back().script = config.data.task;
  }
  ResolvePaths(fs::absolute(path).parent_path(), &config);
  CheckJob(config, job, path);
  return config;
}

void Flatten(const Json& tree, const std::string& prefix, std::map<std::string, Json>* out) {
  for (const auto& [name, value] : tree.items()) {
    const std::string key = prefix.empty() ? name : prefix + "." + name;
    if (value.is_object()) {
      Flatten(value, key, out);
    } else {
      (*out)[key] = value;
    }
  }
}

}  // namespace

std::string Suggestion(const std::string& key) {
  const std::string section = key.substr(0, key.rfind('.') + 1);  // with its dot; "" at the top
  const std::string name = key.substr(section.size());
  std::string best;
  std::size_t least = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const Field& field : Fields()) {
    const std::string its_section = field.key.substr(0, field.key.rfind('.') + 1);
    const std::string its_name = field.key.substr(its_section.size());
    // A right name in a wrong section is near, a wrong name in the right section nearer.
    const std::size_t distance = EditDistance(name, its_name) + (section == its_section ? 0 : 1);
    if (distance < least) {
      least = distance;
      best = field.key;
    }
  }
  if (EditDistance(key, "grpo") <= 1) best = "grpo";
  return best.empty() ? "; temper grpo --help-keys lists all" : "; did you mean \"" + best + "\"?";
}

Config ReadConfig(const std::string& path, const std::vector<std::string>& sets, Job job) {
  return ReadTree(ReadJsonFile(path), path, sets, job);
}

Config ParseConfig(const std::string& text, const std::string& path,
                   const std::vector<std::string>& sets, Job job) {
  return ReadTree(ParseJson(text, path), path, sets, job);
}

Grpo GrpoFromSets(const std::vector<std::string>& sets) {
  Json tree = Json::object();
  Sets by_set;
  for (const std::string& set : sets) {
    if (set.rfind("grpo.", 0) != 0) {
      throw UserError("--set " + set + ": only keys of grpo count here, such as grpo.epsilon=0.2");
    }
    ApplySet(set, &tree, &by_set);
  }
  ResolveFlatNames(&tree, "--set");
  ResolveAliases(&tree, "--set");
  Config config;
  TreeReader("--set", by_set, &config).Read(tree, "");
  if (config.grpo.loss_type == "gspo") config.grpo.importance_sampling_level = "sequence";
  CheckGrpo(config.grpo, "--set");
  return config.grpo;
}

Json ToJson(const Config& config) {
  Json tree = Json::object();
  for (const Field& field : Fields()) {
    Json* at = &tree;
    for (const std::string& part : Split(field.key)) at = &(*at)[part];
    *at = field.get(config);
  }
  return tree;
}

std::vector<std::string> Differences(const Json& before, const Json& after,
                                     const std::vector<std::string>& ignore) {
  std::map<std::string, Json> old_values, new_values;
  Flatten(before, "", &old_values);
  Flatten(after, "", &new_values);
  std::set<std::string> keys;
  for (const auto& [key, value] : old_values) keys.insert(key);
  for (const auto& [key, value] : new_values) keys.insert(key);
  std::vector<std::string> differences;
  for (const std::string& key : keys) {
    const Json& a = old_values[key];
    const Json& b = new_values[key];
    const bool ignored = std::any_of(ignore.begin(), ignore.end(), [&](const std::string& other) {
      return key == other || key.rfind(other + ".", 0) == 0;
    });
    if (a != b && !ignored) differences.push_back(key + ": " + Brief(a) + " -> " + Brief(b));
  }
  return differences;
}

std::string HelpKeys() {
  static const Config defaults;
  std::ostringstream out;
  for (const Field& field : Fields()) {
    out << field.key << " = " << Brief(field.get(defaults)) << "\n    " << field.type
        << (field.range.empty() ? "" : ", " + field.range) << ": " << field.meaning << "\n";
  }
  out << "\nThe names of verl and TRL are read too:\n" << AliasTable();
  for (const auto& [flat, name] : FlatNames())
    out << "grpo." << flat << " -> grpo.rollout_correction." << name << "\n";
  out << "grpo.vllm_importance_sampling_correction -> true: sequence_mask with clip_max 3, as "
         "TRL\n";
  return out.str();
}

}  // namespace temper::configs
