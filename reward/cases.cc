#include "reward/cases.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "configs/error.h"
#include "engine/data/rows.h"
#include "reward/channel.h"
#include "reward/zygote.h"

namespace temper::reward {
namespace {

[[noreturn]] void Fail(const std::string& where, const std::string& what) {
  throw UserError(where + ": " + what);
}

std::string Text(const Json& value, const char* field, const std::string& where) {
  if (!value.is_string()) Fail(where, std::string(field) + " must be a string");
  return value.get<std::string>();
}

void CheckFields(const Json& json, std::initializer_list<const char*> known,
                 const std::string& where) {
  if (!json.is_object()) Fail(where, configs::Brief(json) + " must be an object");
  for (const auto& [key, value] : json.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string names;
    for (const char* name : known) names += (names.empty() ? "" : ", ") + std::string(name);
    Fail(where, "unknown field " + configs::Quote(key) + "; known are " + names);
  }
}

void ReadExpect(const Json& expect, const std::string& where) {
  if (!expect.is_object() || expect.empty()) {
    Fail(where, "expect must be an object such as {\"score\": 1.0} or {\"status\": \"timeout\"}");
  }
  for (const auto& [key, value] : expect.items()) {
    if (key != "status") {
      if (!value.is_number()) Fail(where, "expect." + key + " must be a number");
      continue;
    }
    bool known = false;
    for (int s = 0; s < kStatusCount; ++s) {
      known = known || value == std::string(StatusName(static_cast<Status>(s)));
    }
    if (!known) Fail(where, "expect.status " + configs::Brief(value) + " is no status");
  }
}

/// completion, completion_ids and finish_reason of a case or of one of its samples.
void ReadCompletion(const Json& json, SampleInput* sample, const std::string& where) {
  if (!json.contains("completion")) Fail(where, "completion is missing");
  sample->completion = Text(json["completion"], "completion", where);
  if (json.contains("finish_reason")) {
    sample->finish_reason = Text(json["finish_reason"], "finish_reason", where);
  }
  if (!json.contains("completion_ids")) return;
  const Json& ids = json["completion_ids"];
  if (!ids.is_array()) Fail(where, "completion_ids must be a list of token ids");
  for (const Json& id : ids) {
    sample->completion_ids.push_back(
        static_cast<std::int32_t>(configs::GetInt(id, where + ": completion_ids", 0, INT32_MAX)));
  }
}

/// prompt, row and answer: the same for a whole group.
SampleInput ReadShared(const Json& json, const std::string& where) {
  SampleInput shared;
  shared.finish_reason = "stop";
  const Json row = json.value("row", Json::object());
  if (!row.is_object()) Fail(where, "row must be an object");
  shared.row_json = row.dump(-1, ' ', false, Json::error_handler_t::replace);
  Json prompt = json.value("prompt", row.value("prompt", Json("")));
  if (!prompt.is_string() && !prompt.is_array()) {
    Fail(where, "prompt must be a string or a list of messages");
  }
  shared.prompt_json = prompt.dump(-1, ' ', false, Json::error_handler_t::replace);
  shared.answer = AnswerOfRow(row);
  if (json.contains("answer") && !json["answer"].is_null()) {
    const Json& answer = json["answer"];
    shared.answer = answer.is_string() ? answer.get<std::string>() : answer.dump();
  }
  return shared;
}

std::string Difference(const Json& expect, const ScoreResult& result, const std::string& function,
                       double tolerance) {
  const std::string wanted = expect.value("status", std::string("ok"));
  if (result.status != wanted) return "status is " + result.status + ", expected " + wanted;
  Json found = PartsOf(result, function);
  if (result.score) found["score"] = *result.score;
  for (const auto& [key, value] : expect.items()) {
    if (key == "status") continue;
    if (!found.contains(key) || !found[key].is_number()) {
      return key + " is missing, expected " + value.dump();
    }
    if (!(std::fabs(found[key].get<double>() - value.get<double>()) <= tolerance)) {
      return key + " is " + found[key].dump() + ", expected " + value.dump();
    }
  }
  return "";
}

Json ResultFields(const ScoreResult& result, const std::string& function) {
  Json line = {{"status", result.status}};
  line["score"] = result.score ? Json(*result.score) : Json(nullptr);
  line["parts"] = PartsOf(result, function);
  const ScorePart* const failed = FailedPart(result);
  line["message"] = failed != nullptr ? failed->message : "";
  line["line"] = failed != nullptr ? failed->line : 0;
  return line;
}

}  // namespace

std::optional<std::string> AnswerOfRow(const Json& row, const std::string& column) {
  const auto text = [](const Json& value) -> std::optional<std::string> {
    if (value.is_null()) return std::nullopt;
    return value.is_string() ? value.get<std::string>() : value.dump();
  };
  if (!row.is_object()) return std::nullopt;
  if (!column.empty()) return row.contains(column) ? text(row[column]) : std::nullopt;
  for (const char* name : {"answer", "solution", "ground_truth", "label"}) {
    if (row.contains(name) && !row[name].is_null()) return text(row[name]);
  }
  for (const auto& [outer, inner] :
       {std::pair{"reward_model", "ground_truth"}, std::pair{"metadata", "answer"}}) {
    if (!row.contains(outer) || !row[outer].is_object()) continue;
    if (row[outer].contains(inner) && !row[outer][inner].is_null()) return text(row[outer][inner]);
  }
  return std::nullopt;
}

Case ReadCase(const Json& json, const std::string& where) {
  CheckFields(json,
              {"name", "prompt", "completion", "completion_ids", "row", "answer", "finish_reason",
               "samples", "expect", "tolerance"},
              where);
  Case c;
  c.where = where;
  c.name = json.contains("name") ? Text(json["name"], "name", where) : where;
  if (json.contains("tolerance")) {
    c.tolerance = configs::GetNumber(json["tolerance"], where + ": tolerance", 0, 1e300);
  }
  if (!json.contains("expect")) Fail(where, "expect is missing");
  const SampleInput shared = ReadShared(json, where);
  c.group = json.contains("samples");
  if (!c.group) {
    c.samples = {shared};
    ReadCompletion(json, &c.samples[0], where);
    c.expect = {json["expect"]};
  } else {
    const Json& samples = json["samples"];
    if (!samples.is_array() || samples.empty()) Fail(where, "samples must be a list, not empty");
    for (const Json& item : samples) {
      CheckFields(item, {"completion", "completion_ids", "finish_reason"}, where + ": samples");
      c.samples.push_back(shared);
      ReadCompletion(item, &c.samples.back(), where);
    }
    if (!json["expect"].is_array() || json["expect"].size() != samples.size()) {
      Fail(where, "expect must be a list with one object a sample");
    }
    for (const Json& expect : json["expect"]) c.expect.push_back(expect);
  }
  for (const Json& expect : c.expect) ReadExpect(expect, where);
  return c;
}

std::vector<Case> ReadCases(const std::string& path) {
  std::vector<Case> cases;
  engine::ForEachJson(path, [&](const Json& json, const std::string& where, std::int64_t) {
    cases.push_back(ReadCase(json, where));
  });
  return cases;
}

std::vector<Case> CasesOfScript(const FunctionSpec& function, const HostOptions& options) {
  Job job;
  job.name = function.path.empty() ? function.name : function.path;
  job.script = function.script;
  job.limits = options.limits;
  if (job.script.empty()) return {};
  auto zygote = options.zygote ? options.zygote : std::make_shared<Zygote>(options.zygote_argv);
  const MadeRows made = Channel(*zygote, job, options.start_timeout_s).Cases();
  if (made.outcome.status != Status::kOk) {
    Fail(job.name + ":" + std::to_string(made.outcome.line), made.outcome.message);
  }
  std::vector<Case> cases;
  for (std::size_t i = 0; i < made.rows.size(); ++i) {
    const std::string where = job.name + ": case " + std::to_string(i + 1);
    cases.push_back(ReadCase(configs::ParseJson(made.rows[i], where), where));
  }
  return cases;
}

Json PartsOf(const ScoreResult& result, const std::string& function) {
  const std::string prefix = function + "/";
  Json parts = Json::object();
  for (const ScorePart& part : result.parts) {
    if (part.name.rfind(prefix, 0) == 0 && part.value) {
      parts[part.name.substr(prefix.size())] = *part.value;
    }
  }
  return parts;
}

const ScorePart* FailedPart(const ScoreResult& result) {
  for (const ScorePart& part : result.parts) {
    if (!part.message.empty()) return &part;
  }
  return nullptr;
}

CaseResult RunCase(const Case& c, const std::string& function, RewardHost& host) {
  CaseResult result;
  const auto begin = std::chrono::steady_clock::now();
  result.results = host.ScoreGroup(c.samples);
  result.ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  for (std::size_t i = 0; i < c.samples.size(); ++i) {
    const std::string why = Difference(c.expect[i], result.results[i], function, c.tolerance);
    if (why.empty() || !result.ok) continue;
    result.ok = false;
    result.why = c.group ? "sample " + std::to_string(i + 1) + ": " + why : why;
  }
  return result;
}

Json CaseLine(const Case& c, const CaseResult& result, const std::string& function) {
  Json line = {{"name", c.name}, {"ok", result.ok}};
  const Json first = ResultFields(result.results[0], function);
  for (const auto& [key, value] : first.items()) line[key] = value;
  if (line["message"] == "" && !result.ok) line["message"] = result.why;
  if (c.group) {
    line["samples"] = Json::array();
    for (const ScoreResult& one : result.results) {
      line["samples"].push_back(ResultFields(one, function));
    }
  }
  line["ms"] = std::round(result.ms * 1000) / 1000;
  return line;
}

}  // namespace temper::reward
