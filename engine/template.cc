#include "engine/template.h"

#include <algorithm>

#include "configs/error.h"
#include "configs/files.h"
#include "engine/template_eval.h"
#include "engine/template_lexer.h"

namespace temper::engine {
namespace {

using configs::Brief;
using configs::Quote;

constexpr std::size_t kMaxSource = std::size_t{512} << 10;
constexpr std::int64_t kMaxSteps = 4'000'000;
constexpr std::size_t kMaxLive = std::size_t{32} << 20;
// transformers marks the end of the last message with this and cuts there.
constexpr const char* kEndMark = "CONTINUE_FINAL_MESSAGE_TAG ";

void CheckMessages(const Json& messages) {
  if (!messages.is_array() || messages.empty()) {
    throw UserError("messages: " + Brief(messages) + " must be a list of messages, not empty");
  }
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (!messages[i].is_object()) {
      throw UserError("messages[" + std::to_string(i) + "]: " + Brief(messages[i]) +
                      " must be an object with \"role\" and \"content\"");
    }
  }
}

// Appends the mark to the last message; gives the text it was appended to.
std::string MarkEnd(Json* messages) {
  Json& last = messages->back();
  const auto content = last.find("content");
  Json* text = content == last.end() ? nullptr : &*content;
  if (text && text->is_array()) {
    Json* found = nullptr;
    for (Json& part : *text) {
      if (part.is_object() && part.contains("text")) found = &part["text"];
    }
    text = found;
  }
  if (!text || !text->is_string()) {
    throw UserError("the last message has no content to continue");
  }
  const std::string before = text->get<std::string>();
  *text = before + kEndMark;
  return before;
}

void CutAtMark(const std::string& message, std::string* text) {
  const std::string mark = kEndMark;
  const std::string bare = mark.substr(0, mark.size() - 1);
  const std::size_t at = text->rfind(bare);
  // A template that changes the message (drops its thinking) would not be continued where it ends.
  const std::string_view kept = jinja::Strip(message, nullptr, true, true);
  if (at == text->npos || text->find(kept) == text->npos) {
    throw UserError(
        "the chat template does not render the end of the last message: it cannot be continued");
  }
  const bool spaced = text->compare(at, mark.size(), mark) == 0;
  text->resize(at);
  if (!spaced) text->resize(jinja::Strip(*text, nullptr, false, true).size());
}

}  // namespace

struct ChatTemplate::State {
  std::string where;
  jinja::Body body;
};

ChatTemplate::ChatTemplate(std::string_view source, std::string where)
    : state_(std::make_unique<State>()) {
  state_->where = std::move(where);
  if (source.size() > kMaxSource) {
    throw UserError(state_->where + ": a chat template of " + std::to_string(source.size()) +
                    " bytes: at most " + std::to_string(kMaxSource) + " are read");
  }
  try {
    state_->body = jinja::Parse(source);
  } catch (const jinja::SyntaxError& error) {
    throw UserError(state_->where + ":" + std::to_string(error.line) + ": " + error.what());
  }
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

ChatTemplate::Text ChatTemplate::Render(const Json& messages, const ChatOptions& options,
                                        const Variables& tokens) const {
  CheckMessages(messages);
  Json marked;
  std::string final_message;
  if (options.continue_final_message) {
    if (options.add_generation_prompt) {
      throw UserError(
          "a message cannot be continued and a new one begun: give one of add_generation_prompt "
          "and "
          "continue_final_message");
    }
    marked = messages;
    final_message = MarkEnd(&marked);
  }
  jinja::Meter meter(kMaxSteps, kMaxLive);
  using jinja::Value;
  std::vector<std::pair<std::string, Value>> globals;
  const auto set = [&](const std::string& name, Value value) {
    for (auto& [known, old] : globals) {
      if (known == name) {
        old = std::move(value);
        return;
      }
    }
    globals.emplace_back(name, std::move(value));
  };
  try {
    for (const auto& [name, text] : tokens) set(name, Value::Text(text, nullptr));
    set("messages", Value::FromJson(options.continue_final_message ? marked : messages, nullptr));
    set("tools", Value::FromJson(options.tools, nullptr));
    set("documents", Value::None());
    set("add_generation_prompt", Value::Bool(options.add_generation_prompt));
    if (options.variables.is_object()) {
      for (const auto& [name, value] : options.variables.items())
        set(name, Value::FromJson(value, nullptr));
    }
    jinja::Rendering out = jinja::Run(state_->body, std::move(globals), &meter);
    if (options.continue_final_message) CutAtMark(final_message, &out.text);
    return {std::move(out.text), std::move(out.generated)};
  } catch (const jinja::SyntaxError& error) {
    throw UserError(state_->where + ":" + std::to_string(error.line) + ": " + error.what());
  } catch (const jinja::Failure& error) {
    throw UserError(state_->where + ": " + error.what());
  }
}

ChatTemplates::ChatTemplates(const std::string& dir) {
  const std::string config_path = dir + "/tokenizer_config.json",
                    own_path = dir + "/chat_template.jinja";
  Json config = Json::object();
  configs::JsonLimits limits;
  limits.max_bytes = std::size_t{16} << 20;
  if (configs::Exists(config_path))
    config = configs::ReadJsonFile(dir, "tokenizer_config.json", limits);
  if (!config.is_object()) throw UserError(config_path + ": must be an object");
  for (const char* name : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
                           "cls_token", "mask_token"}) {
    const auto found = config.find(name);
    if (found == config.end() || found->is_null()) continue;
    const Json text = found->is_object() ? found->value("content", Json()) : *found;
    if (!text.is_string())
      throw UserError(config_path + ": " + name + ": " + Brief(*found) + " must name a token");
    tokens_.emplace_back(name, text.get<std::string>());
  }
  if (configs::Exists(own_path)) {
    templates_.emplace_back(
        "default", ChatTemplate(configs::ReadWholeFile(
                                    configs::InputFile(dir, "chat_template.jinja"), kMaxSource),
                                own_path));
    return;
  }
  const auto found = config.find("chat_template");
  const std::string where = config_path + ": chat_template";
  if (found == config.end() || found->is_null()) {
    throw UserError(
        dir +
        ": messages need a chat template: neither chat_template.jinja nor \"chat_template\" in "
        "tokenizer_config.json is there");
  }
  if (found->is_string()) {
    templates_.emplace_back("default", ChatTemplate(found->get_ref<const std::string&>(), where));
    return;
  }
  if (!found->is_array())
    throw UserError(where + ": " + Brief(*found) + " must be a text or a list of templates");
  for (const Json& item : *found) {
    const Json name = item.is_object() ? item.value("name", Json()) : Json();
    const Json text = item.is_object() ? item.value("template", Json()) : Json();
    if (!name.is_string() || !text.is_string()) {
      throw UserError(where + ": " + Brief(item) + " must have a \"name\" and a \"template\"");
    }
    // The others serve other ends: retrieval and the like.
    const std::string& known = name.get_ref<const std::string&>();
    if (known != "default" && known != "tool_use") continue;
    templates_.emplace_back(
        known, ChatTemplate(text.get_ref<const std::string&>(), where + " " + Quote(known)));
  }
}

ChatTemplate::Text ChatTemplates::Render(const Json& messages, const ChatOptions& options) const {
  const auto named = [&](const char* name) {
    return std::find_if(templates_.begin(), templates_.end(),
                        [&](const auto& t) { return t.first == name; });
  };
  auto found = options.tools.is_null() ? templates_.end() : named("tool_use");
  if (found == templates_.end()) found = named("default");
  if (found == templates_.end())
    throw UserError("chat_template: the list has none named \"default\"");
  return found->second.Render(messages, options, tokens_);
}

Chat ReadChat(const Json& json) {
  Chat chat;
  if (json.is_array()) {
    chat.messages = json;
    return chat;
  }
  if (!json.is_object() || !json.contains("messages")) {
    throw UserError(Brief(json) + " must be a list of messages or an object with \"messages\"");
  }
  chat.options.variables = Json::object();
  for (const auto& [name, value] : json.items()) {
    bool* flag = name == "add_generation_prompt"    ? &chat.options.add_generation_prompt
                 : name == "continue_final_message" ? &chat.options.continue_final_message
                                                    : nullptr;
    if (name == "messages") {
      chat.messages = value;
    } else if (name == "tools") {
      if (!value.is_null() && !value.is_array())
        throw UserError("tools: " + Brief(value) + " must be a list");
      chat.options.tools = value;
    } else if (!flag) {
      chat.options.variables[name] = value;
    } else if (value.is_boolean()) {
      *flag = value.get<bool>();
    } else if (!value.is_null()) {
      throw UserError(name + ": " + Brief(value) + " must be true or false");
    }
  }
  return chat;
}

}  // namespace temper::engine
