#pragma once
// The token ids of dataset rows: what a model sees of a prompt, what it is trained on.
#include <cstdint>
#include <string>
#include <utility>
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

/// What a reward model sees: a text prompt (null: none) and text with BOS iff the tokenizer adds
/// it, or a prompt of messages and further messages by the chat template. Throws UserError without
/// a place.
std::vector<std::int32_t> JudgedIds(const Json& prompt, const Json& answer,
                                    const Tokenizer& tokenizer);

/// The same of a preference row: its prompt ("prompt", or `prompt_column`), where it has one, and
/// its column "chosen" or "rejected". Throws UserError "<where>: ...".
std::vector<std::int32_t> PreferenceIds(const Json& row, const std::string& column,
                                        const std::string& prompt_column, const std::string& where,
                                        const Tokenizer& tokenizer);

struct TrainingIds {
  std::vector<std::int32_t> ids;
  int prompt = 0;  // ids before the completion: 0 where all of a row is trained
  std::vector<std::uint8_t> assistant;  // one an id: 1 in an assistant's turn; empty: not asked for
};

/// Ids of a RowUse::kCompletion row. Rows of ids are taken as they are; texts end with EOS; conversations end as the chat template
/// ends them, and their prompt is what the rendering with a prompt for an answer has in common with
/// the whole (templates that drop an earlier turn's thinking end it earlier). Throws UserError
/// "<path>:<line>: ...".
/// `assistant`: rows of messages also tell which ids are the assistants': what the template's
/// {% generation %} blocks rendered, as transformers' assistant_masks; without such blocks each
/// turn from behind its prompt for an answer to its end. Other rows are then refused.
TrainingIds CompletionIds(const Row& row, const Tokenizer& tokenizer, bool assistant = false);

/// One an id: 1 where the id spells a byte of a span of `text`. Throws UserError unless the ids
/// spell the text.
std::vector<std::uint8_t> MarkSpans(const std::string& text, const std::vector<std::int32_t>& ids,
                                    const std::vector<std::pair<std::size_t, std::size_t>>& spans,
                                    const Tokenizer& tokenizer);

}  // namespace temper::engine
