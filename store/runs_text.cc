#include <algorithm>
#include <cstdio>

#include "store/runs.h"

namespace temper::store {
namespace {

std::string Number(const Json& value, const char* format = "%.4g") {
  if (value.is_null()) return "-";
  if (value.is_number_integer()) return std::to_string(value.get<std::int64_t>());
  if (!value.is_number()) return value.is_string() ? value.get<std::string>() : value.dump();
  char text[64];
  std::snprintf(text, sizeof text, format, value.get<double>());
  return text;
}

std::string Field(const Json& object, const char* key) {
  return object.contains(key) ? Number(object[key]) : "-";
}

/// Columns as wide as their longest cell; the last one is not padded.
std::string Table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> width;
  for (const auto& row : rows) {
    width.resize(std::max(width.size(), row.size()), 0);
    for (std::size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      text += row[i];
      if (i + 1 < row.size()) text += std::string(width[i] - row[i].size() + 2, ' ');
    }
    text += '\n';
  }
  return text;
}

std::string CountsText(const Json& counts) {
  std::string text;
  for (const auto& [key, value] : counts.items()) {
    text += (text.empty() ? "" : ", ") + key + " " + Number(value);
  }
  return text.empty() ? "-" : text;
}

std::string TextOf(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

}  // namespace

std::string ListText(const std::vector<Json>& runs) {
  std::vector<std::vector<std::string>> rows = {
      {"name", "state", "steps", "reward", "rollouts", "dropped"}};
  for (const Json& run : runs) {
    rows.push_back({Field(run, "name"), Field(run, "state"), Field(run, "steps"),
                    Field(run, "reward"), Field(run, "rollouts"), Field(run, "dropped")});
    if (run.contains("error")) rows.back().push_back(Field(run, "error"));
  }
  return Table(rows);
}

std::string RunText(const Json& run) {
  std::vector<std::vector<std::string>> rows;
  for (const char* key : {"name", "state", "steps", "reward", "version", "incarnation",
                          "checkpoint", "temper_version", "numerics", "rollouts"}) {
    rows.push_back({key, Field(run, key)});
  }
  for (const char* key : {"rollouts_by_state", "statuses", "dropped_reasons"}) {
    rows.push_back({key, CountsText(run[key])});
  }
  std::string text = Table(rows);
  if (run["last_steps"].empty()) return text;
  std::vector<std::vector<std::string>> steps = {
      {"step", "version", "loss", "reward_mean", "seconds", "checkpoint"}};
  for (const Json& step : run["last_steps"]) {
    std::vector<std::string> cells;
    for (const std::string& key : steps[0]) cells.push_back(Field(step, key.c_str()));
    steps.push_back(cells);
  }
  return text + "\n" + Table(steps);
}

std::string RolloutText(const Json& rollout) {
  std::vector<std::vector<std::string>> rows;
  for (const char* key : {"name", "state", "reason", "status", "score", "advantage", "trained_step",
                          "lag", "version", "version_last", "actor", "seed", "finish_reason"}) {
    const std::string value = Field(rollout, key);
    if (!value.empty() && value != "-") rows.push_back({key, value});
  }
  std::string text = Table(rows);
  for (const Json& part : rollout["parts"]) {
    text += "part " + Field(part, "name") + " = " + Field(part, "value") + " (weight " +
            Field(part, "weight") + ", " + Field(part, "status") + ", " + Field(part, "micros") +
            " us)";
    const std::string message = Field(part, "message");
    text += (message.empty() ? "" : ": " + message) + "\n";
  }
  if (rollout.contains("prompt")) text += "\nprompt:\n" + TextOf(rollout["prompt"]) + "\n";
  text += "\ncompletion:\n" + TextOf(rollout["text"]) + "\n\n";
  std::vector<std::vector<std::string>> tokens = {{"t", "id", "logp", "mask", "version"}};
  const Json& versions = rollout["versions"];
  for (std::size_t t = 0; t < rollout["ids"].size(); ++t) {
    tokens.push_back({std::to_string(t), Number(rollout["ids"][t]),
                      Number(rollout["logp"][t], "%.6f"), Number(rollout["loss_mask"][t]),
                      Number(versions.is_array() ? versions[t] : rollout["version"])});
  }
  return text + Table(tokens);
}

}  // namespace temper::store
