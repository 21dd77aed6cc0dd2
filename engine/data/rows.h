#pragma once
// Dataset rows: JSONL of the field's formats, one row of it understood.
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "configs/json.h"

namespace temper::engine {

struct Row {
  std::int64_t line = 0;  // from 1
  Json json;              // all columns, as read
  std::string where;      // "path:line", for errors
  std::string prompt;     // string prompt ("" where ids or messages are given)
  Json messages;  // prompt as messages, null: none; sft rows of whole conversations: all of them
  Json completion_messages;  // sft rows: the completion as messages, null: none
  Json tools;  // of rows with messages: column "tools", a list or a text of one; null: none
  Json template_variables;  // of rows with messages: column "chat_template_kwargs"; null: none
  std::vector<std::int32_t> ids;  // {"ids": [...]} rows; the prompt of {"prompt_ids", "completion_ids"}
  std::vector<std::int32_t> completion_ids;  // sft rows of ids
  std::string completion;  // sft rows: prompt + completion; {"text"} rows have an empty prompt
  std::string answer;      // the first present of answer, solution, ground_truth, label,
                           // reward_model.ground_truth, metadata.answer
  bool has_answer =
      false;  // (numbers and booleans are spelled as JSON spells them; strings as they are)
};

/// kPrompt: prompt, question, messages (less a last assistant turn) or ids is required.
/// kCompletion: prompt and completion (both texts or both messages), text, messages, or prompt_ids and
/// completion_ids.
enum class RowUse { kPrompt, kCompletion };

/// Gives the value of every line of a JSONL file with "<path>:<line>" and the line's number. Blank
/// lines are skipped; CRLF is accepted. Throws UserError where a line is no JSON.
void ForEachJson(
    const std::string& path,
    const std::function<void(Json, const std::string& where, std::int64_t line)>& give);

/// Reads a whole JSONL file, as ForEachJson. Throws UserError
/// "<path>:<line>: ..." for broken JSON, a missing column (names what is there), a wrong type, an
/// empty file.
std::vector<Row> ReadRows(const std::string& path, RowUse use, const std::string& prompt_column,
                          const std::string& answer_column);

/// One row that stands in no file: `where` names it in errors.
Row ReadRow(Json json, const std::string& where, std::int64_t line, RowUse use,
            const std::string& prompt_column, const std::string& answer_column);

/// A permutation of [0, n) for (seed, epoch): Fisher-Yates on Philox; the same on every machine.
std::vector<std::int64_t> Shuffled(std::int64_t n, std::uint64_t seed, std::uint64_t epoch);

}  // namespace temper::engine
