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

std::vector<std::int32_t> ChatIds(const Row& row, const Json& messages, ChatOptions options,
                                  const Tokenizer& tokenizer) {
  options.tools = row.tools;
  options.variables = row.template_variables;
  return tokenizer.Encode(tokenizer.chat().Render(messages, options).text);
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

TrainingIds ChatCompletionIds(const Row& row, const Tokenizer& tokenizer) {
  TrainingIds out;
  if (row.completion_messages.is_null()) {
    out.ids = ChatIds(row, row.messages, {}, tokenizer);
    return out;
  }
  Json whole = row.messages;
  for (const Json& message : row.completion_messages) whole.push_back(message);
  out.ids = ChatIds(row, whole, {}, tokenizer);
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

TrainingIds CompletionIds(const Row& row, const Tokenizer& tokenizer) {
  return At(row, [&] {
    if (!row.messages.is_null()) return ChatCompletionIds(row, tokenizer);
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
