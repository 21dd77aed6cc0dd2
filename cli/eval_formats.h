#pragma once
// Published evaluation sets as they lie on disk: their rows as prompts, their answers, their
// reward.
#include <string>
#include <vector>

#include "configs/json.h"
#include "engine/data/rows.h"
#include "reward/host.h"

namespace temper::cli {

struct EvalFormat {
  std::string name;        // gsm8k | math | mmlu | ceval
  std::string shots_data;  // rows of the same format, worked examples; needed for shots > 0
  int shots = 0;           // the first so many of them stand before each question
};

/// gsm8k    {question, answer}: "... #### 42"
/// math     {problem, solution} with \boxed, or {problem, answer}
/// mmlu     {question, choices, answer}: an index or a letter
/// ceval    {question, A, B, C, D, answer}: a letter
/// Each row has prompt, json and answer. UserError "<path>:<line>: ..." for a row of another form.
std::vector<engine::Row> ReadFormatRows(const EvalFormat& format, const std::string& path);

/// The rule that finds and checks the answer. UserError for an unknown format, and for humaneval,
/// whose programs must be run by something else.
reward::FunctionSpec FormatReward(const std::string& name);

/// What begins the next question: a base model that has seen examples goes on with one.
std::string FormatStop(const std::string& name);

/// {"format", "shots", "extraction"} for the summary.
Json FormatSummary(const EvalFormat& format);

}  // namespace temper::cli
