#pragma once
// Chat templates: messages to the text a model was trained on, as transformers'
// apply_chat_template.
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "configs/json.h"

namespace temper::engine {

struct ChatOptions {
  bool add_generation_prompt = false;
  bool continue_final_message = false;  // the text ends where the last message's content ends
  Json tools;                           // a list of schemas; null: none
  Json variables;                       // an object: "thinking" and the like; null: none
};

/// One compiled template. The language is the part of Jinja that published templates use, with
/// transformers' settings (trim_blocks, lstrip_blocks, tojson, raise_exception, generation, break);
/// docs/formats.md lists it. It has no access to anything but its variables. Limits: 512 KiB of
/// template, 4 million steps, 32 MiB of values, 16 MiB of text. Safe to use from many threads.
class ChatTemplate {
 public:
  using Variables = std::vector<std::pair<std::string, std::string>>;
  struct Text {
    std::string text;
    std::vector<std::pair<std::size_t, std::size_t>> generated;  // bytes in {% generation %} blocks
  };

  /// Throws UserError "<where>:<line>: <what>" for what is not supported.
  ChatTemplate(std::string_view source, std::string where);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  /// `messages` is a list of objects. Throws UserError "<where>:<line>: ..." where the template
  /// fails, a limit is passed or the template calls raise_exception; UserError for wrong messages.
  Text Render(const Json& messages, const ChatOptions& options, const Variables& tokens) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The templates of a model's folder: chat_template.jinja, else tokenizer_config.json's
/// chat_template (one, or a list of which "tool_use" serves rows with tools).
class ChatTemplates {
 public:
  /// Throws UserError if the folder has none, naming both places.
  explicit ChatTemplates(const std::string& dir);
  ChatTemplate::Text Render(const Json& messages, const ChatOptions& options) const;

 private:
  ChatTemplate::Variables tokens_;                               // bos_token and the like
  std::vector<std::pair<std::string, ChatTemplate>> templates_;  // by name
};

/// One chat as JSON: a list of messages, or an object with "messages", "tools",
/// "add_generation_prompt", "continue_final_message"; its other members are variables.
struct Chat {
  Json messages;
  ChatOptions options;
};
/// Throws UserError for another shape.
Chat ReadChat(const Json& json);

}  // namespace temper::engine
