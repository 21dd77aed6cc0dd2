#pragma once
// Cases: what a reward must give for a completion, written down beside the script.
//
//   {"name", "prompt", "completion", "completion_ids": [], "row": {}, "answer", "finish_reason":
//   "stop",
//    "expect": {"score": 1.0, "PART": 1.0} or {"status": "timeout"}, "tolerance": 1e-6}
//   {"name", "prompt", "row", "answer", "samples": [{"completion", "finish_reason",
//   "completion_ids"}],
//    "expect": [...], "tolerance"}        for score_group()
#include <optional>
#include <string>
#include <vector>

#include "configs/json.h"
#include "reward/host.h"

namespace temper::reward {

struct Case {
  std::string name, where;           // where: FILE:LINE, or SCRIPT: case N
  std::vector<SampleInput> samples;  // one, or a group
  bool group = false;
  std::vector<Json> expect;  // an object a sample
  double tolerance = 1e-6;
};

struct CaseResult {
  bool ok = true;
  std::string why;  // the first difference; "" if ok
  std::vector<ScoreResult> results;
  double ms = 0;
};

/// The first present of answer, solution, ground_truth, label, reward_model.ground_truth,
/// metadata.answer; `column` is looked at alone if it is given.
std::optional<std::string> AnswerOfRow(const Json& row, const std::string& column = "");

/// Reads one case. UserError "<where>: ..." for an unknown field, a wrong type, a missing `expect`.
Case ReadCase(const Json& json, const std::string& where);

/// JSONL; blank lines are skipped.
std::vector<Case> ReadCases(const std::string& path);

/// The global `cases` of a script, read in a sandbox. UserError if it is no list of cases.
std::vector<Case> CasesOfScript(const FunctionSpec& function, const HostOptions& options);

/// `host` has one function, of this name.
CaseResult RunCase(const Case& c, const std::string& function, RewardHost& host);

/// {name, ok, status, score, parts, message, line, ms}; of a group the results in `samples`.
Json CaseLine(const Case& c, const CaseResult& result, const std::string& function);

/// {score-like fields} of a result's parts: FUNCTION/FIELD as FIELD.
Json PartsOf(const ScoreResult& result, const std::string& function);
/// The message and line of the first part that has one.
const ScorePart* FailedPart(const ScoreResult& result);

}  // namespace temper::reward
