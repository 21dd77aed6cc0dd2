#include "engine/data/row_ids.h"

#include <algorithm>

#include "configs/error.h"

namespace temper::engine {
namespace {

// Adds the row's place to what went wrong with it.
template <typename F>
auto At(const Row& row, F&& work) {
  try {
    return work();
  } catch (const UserError& error) {
    throw UserError(row.where + ": " + error.what());
  }
}

ChatTemplate::Text ChatText(const Row& row, const Json& messages, ChatOptions options,
                            const Tokenizer& tokenizer) {
  options.tools = row.tools;
  options.variables = row.template_variables;
  return tokenizer.chat().Render(messages, options);
}

std::vector<std::int32_t> ChatIds(const Row& row, const Json& messages, const ChatOptions& options,
                                  const Tokenizer& tokenizer) {
  return tokenizer.Encode(ChatText(row, messages, options, tokenizer).text);
}

std::size_t CommonLength(const std::string& a, const std::string& b) {
  const std::size_t n = std::min(a.size(), b.size());
  return static_cast<std::size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin()).first -
      a.begin());
}

/// The bytes of the whole conversation that assistants said.
std::vector<std::pair<std::size_t, std::size_t>> AssistantSpans(const Row& row,
                                                                const Json& messages,
                                                                const ChatTemplate::Text& whole,
                                                                const Tokenizer& tokenizer) {
  if (!whole.generated.empty()) return whole.generated;
  std::vector<std::pair<std::size_t, std::size_t>> spans;
  Json before = Json::array();
  for (const Json& message : messages) {
    if (message.value("role", "") != "assistant") {
      before.push_back(message);
      continue;
    }
    std::size_t begin = 0;
    if (!before.empty()) {
      ChatOptions options;
      options.add_generation_prompt = true;
      begin = CommonLength(ChatText(row, before, options, tokenizer).text, whole.text);
    }
    before.push_back(message);
    const std::size_t end = CommonLength(ChatText(row, before, {}, tokenizer).text, whole.text);
    if (end <= begin) {
      throw UserError("the chat template renders nothing of message " +
                      std::to_string(before.size() - 1) + ", an assistant's turn");
    }
    spans.emplace_back(begin, end);
  }
  return spans;
}

std::vector<std::int32_t> ChatPromptIds(const Row& row, const Tokenizer& tokenizer) {
  const std::string role = row.messages.back().at("role").get<std::string>();
  ChatOptions options;
  options.add_generation_prompt = role == "user" || role == "tool";
  options.continue_final_message = role == "assistant";
  if (!options.add_generation_prompt && !options.continue_final_message) {
    throw UserError("the last message's role is " + configs::Quote(role) +
                    ": a prompt ends with a turn of \"user\", \"tool\" or \"assistant\"");
  }
  return ChatIds(row, row.messages, options, tokenizer);
}

TrainingIds ChatCompletionIds(const Row& row, const Tokenizer& tokenizer, bool assistant) {
  TrainingIds out;
  Json whole = row.messages;
  if (!row.completion_messages.is_null()) {
    for (const Json& message : row.completion_messages) whole.push_back(message);
  }
  const ChatTemplate::Text text = ChatText(row, whole, {}, tokenizer);
  out.ids = tokenizer.Encode(text.text);
  if (assistant) {
    out.assistant =
        MarkSpans(text.text, out.ids, AssistantSpans(row, whole, text, tokenizer), tokenizer);
  }
  if (row.completion_messages.is_null()) return out;
  ChatOptions options;
  options.add_generation_prompt = true;
  const std::vector<std::int32_t> prompt = ChatIds(row, row.messages, options, tokenizer);
  const std::size_t shorter = std::min(prompt.size(), out.ids.size());
  const auto end = std::mismatch(
      prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(shorter), out.ids.begin());
  out.prompt = static_cast<int>(end.first - prompt.begin());
  if (out.prompt == static_cast<int>(out.ids.size())) {
    throw UserError("the chat template renders nothing of the completion");
  }
  return out;
}

}  // namespace

std::vector<std::int32_t> JudgedIds(const Json& prompt, const Json& answer,
                                    const Tokenizer& tokenizer) {
  if (answer.is_string() && (prompt.is_string() || prompt.is_null())) {
    return tokenizer.EncodePrompt((prompt.is_null() ? "" : prompt.get<std::string>()) +
                                  answer.get<std::string>());
  }
  if (!answer.is_array() || !(prompt.is_array() || prompt.is_null())) {
    throw UserError("prompt and answer must both be texts or both be lists of messages");
  }
  Json messages = prompt.is_null() ? Json::array() : prompt;
  messages.insert(messages.end(), answer.begin(), answer.end());
  return tokenizer.Encode(tokenizer.chat().Render(messages, {}).text);
}

std::vector<std::int32_t> PreferenceIds(const Json& row, const std::string& column,
                                        const std::string& prompt_column, const std::string& where,
                                        const Tokenizer& tokenizer) {
  if (!row.is_object()) throw UserError(where + ": a row must be an object");
  const std::string named = prompt_column.empty() ? "prompt" : prompt_column;
  const auto prompt = row.find(named), answer = row.find(column);
  if (prompt == row.end() && !prompt_column.empty())
    throw UserError(where + ": no column \"" + prompt_column + "\" (data.prompt_column)");
  if (answer == row.end())
    throw UserError(where + ": no column \"" + column +
                    "\"; a pair needs \"chosen\" and \"rejected\"");
  try {
    std::vector<std::int32_t> ids =
        JudgedIds(prompt == row.end() ? Json() : *prompt, *answer, tokenizer);
    if (ids.empty()) throw UserError("no token");
    return ids;
  } catch (const UserError& error) {
    throw UserError(where + ": " + column + ": " + error.what());
  }
}

std::vector<std::int32_t> PromptIds(const Row& row, const Tokenizer& tokenizer) {
  return At(row, [&] {
    if (!row.ids.empty()) return row.ids;
    return row.messages.is_null() ? tokenizer.EncodePrompt(row.prompt)
                                  : ChatPromptIds(row, tokenizer);
  });
}

Json PromptJson(const Row& row) {
  if (!row.ids.empty()) return row.ids;
  return row.messages.is_null() ? Json(row.prompt) : row.messages;
}

std::vector<std::uint8_t> MarkSpans(const std::string& text, const std::vector<std::int32_t>& ids,
                                    const std::vector<std::pair<std::size_t, std::size_t>>& spans,
                                    const Tokenizer& tokenizer) {
  std::vector<std::uint8_t> marks(ids.size());
  std::size_t at = 0, span = 0;
  for (std::size_t t = 0; t < ids.size(); ++t) {
    const std::size_t end = at + tokenizer.Bytes(ids[t], /*skip_special=*/false).size();
    while (span < spans.size() && spans[span].second <= at) ++span;
    marks[t] = span < spans.size() && spans[span].first < end && at < end;
    at = end;
  }
  if (at != text.size()) {
    throw UserError("the tokens spell " + std::to_string(at) + " bytes of a conversation of " +
                    std::to_string(text.size()) + ": its turns can't be told apart");
  }
  return marks;
}

TrainingIds CompletionIds(const Row& row, const Tokenizer& tokenizer, bool assistant) {
  return At(row, [&] {
    if (!row.messages.is_null()) return ChatCompletionIds(row, tokenizer, assistant);
    if (!row.completion_ids.empty() && !assistant) {
      TrainingIds out{row.ids, static_cast<int>(row.ids.size()), {}};
      out.ids.insert(out.ids.end(), row.completion_ids.begin(), row.completion_ids.end());
      return out;
    }
    if (assistant) {
      throw UserError("a row of text or ids has no assistant's turns; it needs messages");
    }
    if (tokenizer.eos_id() < 0) {
      throw UserError("the tokenizer has no eos_token: every text must end with one");
    }
    TrainingIds out;
    out.ids = tokenizer.EncodePrompt(row.prompt);
    out.prompt = static_cast<int>(out.ids.size());
    const std::vector<std::int32_t> completion = tokenizer.Encode(row.completion);
    out.ids.insert(out.ids.end(), completion.begin(), completion.end());
    out.ids.push_back(tokenizer.eos_id());
    return out;
  });
}

}  // namespace temper::engine
