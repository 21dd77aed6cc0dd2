#pragma once
// The token ids of dataset rows: what a model sees of a prompt, what it is trained on.
#include <cstdint>
#include <vector>

#include "engine/data/rows.h"
#include "engine/tokenizer.h"

namespace temper::engine {

/// {"ids"} rows as they are; a text with BOS iff the tokenizer adds it; messages by the chat
/// template, with the beginning of an answer behind a user's or tool's turn, and going on with a
/// last assistant's turn. Throws UserError "<path>:<line>: ...".
std::vector<std::int32_t> PromptIds(const Row& row, const Tokenizer& tokenizer);

/// The prompt as the row has it: a JSON string, a list of messages or a list of ids.
Json PromptJson(const Row& row);

struct TrainingIds {
  std::vector<std::int32_t> ids;
  int prompt = 0;  // ids before the completion: 0 where all of a row is trained
};

/// Ids of a RowUse::kCompletion row. Texts end with EOS; conversations end as the chat template
/// ends them, and their prompt is what the rendering with a prompt for an answer has in common with
/// the whole (templates that drop an earlier turn's thinking end it earlier). Throws UserError
/// "<path>:<line>: ...".
TrainingIds CompletionIds(const Row& row, const Tokenizer& tokenizer);

}  // namespace temper::engine
