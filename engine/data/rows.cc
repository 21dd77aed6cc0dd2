#include "engine/data/rows.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <string_view>

#include "configs/error.h"
#include "configs/files.h"
#include "kernels/sampling.h"

namespace temper::engine {
namespace {

using configs::Brief;

constexpr std::size_t kMaxLine = std::size_t{64} << 20;
constexpr std::size_t kChunk = std::size_t{1} << 20;

// Gives every line with its number, without its line feed. Memory: the longest line and a chunk.
void ForEachLine(const std::string& path,
                 const std::function<void(std::int64_t, std::string_view)>& give) {
  const configs::InputFile file(path);
  std::string pending, chunk;
  std::int64_t line = 1;
  for (std::uint64_t at = 0; at < file.size(); at += chunk.size()) {
    chunk.resize(std::min<std::uint64_t>(kChunk, file.size() - at));
    file.ReadAt(at, std::as_writable_bytes(std::span(chunk)));
    std::string_view rest = chunk;
    while (!rest.empty()) {
      const std::size_t feed = rest.find('\n');
      pending.append(rest.substr(0, feed));
      if (pending.size() > kMaxLine) {
        throw UserError(path + ":" + std::to_string(line) + ": longer than " +
                        std::to_string(kMaxLine >> 20) + " MiB");
      }
      if (feed == rest.npos) break;
      give(line++, pending);
      pending.clear();
      rest.remove_prefix(feed + 1);
    }
  }
  if (!pending.empty()) give(line, pending);
}

const Json* Find(const Json& object, const std::string& name) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(name);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

// One row being understood; every error starts with "path:line: ".
class RowReader {
 public:
  RowReader(std::string where, RowUse use, const std::string& prompt_column,
            const std::string& answer_column)
      : where_(std::move(where)),
        use_(use),
        prompt_column_(prompt_column),
        answer_column_(answer_column) {}

  Row Read(Json json, std::int64_t line) {
    if (!json.is_object()) Fail("a row must be a JSON object, not " + Brief(json));
    Row row;
    row.line = line;
    row.where = where_;
    row.json = std::move(json);
    if (use_ == RowUse::kPrompt) {
      ReadPrompt(row);
    } else {
      ReadCompletion(row);
    }
    ReadAnswer(row);
    return row;
  }

 private:
  [[noreturn]] void Fail(const std::string& what) const { throw UserError(where_ + ": " + what); }

  [[noreturn]] void FailMissing(const Json& row, const std::string& wanted) const {
    std::string there;
    for (const auto& [key, value] : row.items()) {
      there += (there.empty() ? "" : ", ") + configs::Quote(key);
      if (there.size() > 300) {
        there += ", ...";
        break;
      }
    }
    Fail("no " + wanted + ": the row has " + (there.empty() ? "no columns" : there));
  }

  std::string Text(const Json& value, const std::string& column) const {
    if (value.is_string()) return value.get<std::string>();
    Fail("\"" + column + "\": " + Brief(value) + " must be a string");
  }

  Json Messages(const Json& value, const std::string& column) const {
    if (value.empty()) Fail("\"" + column + "\" must be a list of messages, not empty");
    for (std::size_t i = 0; i < value.size(); ++i) {
      const Json* role = Find(value[i], "role");
      if (!role || !role->is_string()) {
        Fail("\"" + column + "\"[" + std::to_string(i) + "]: " + Brief(value[i]) +
             " must be a message with a \"role\"");
      }
    }
    return value;
  }

  // What else a chat template is given: the columns that TRL reads.
  void ReadTemplateColumns(Row& row) const {
    if (const Json* tools = Find(row.json, "tools")) {
      row.tools = tools->is_string() ? configs::ParseJson(tools->get_ref<const std::string&>(),
                                                          where_ + ": \"tools\"")
                                     : *tools;
      if (!row.tools.is_array()) Fail("\"tools\": " + Brief(*tools) + " must be a list");
      if (row.tools.empty()) row.tools = nullptr;
    }
    if (const Json* variables = Find(row.json, "chat_template_kwargs")) {
      if (!variables->is_object())
        Fail("\"chat_template_kwargs\": " + Brief(*variables) + " must be an object");
      row.template_variables = *variables;
    }
  }

  void TakePrompt(Row& row, const Json& value, const std::string& column) const {
    if (!value.is_array()) {
      row.prompt = Text(value, column);
      return;
    }
    row.messages = Messages(value, column);
    ReadTemplateColumns(row);
  }

  void ReadPrompt(Row& row) const {
    if (!prompt_column_.empty()) {
      const Json* value = Find(row.json, prompt_column_);
      if (!value) FailMissing(row.json, "column " + configs::Quote(prompt_column_));
      return TakePrompt(row, *value, prompt_column_);
    }
    for (const char* column : {"prompt", "question"}) {
      if (const Json* value = Find(row.json, column)) return TakePrompt(row, *value, column);
    }
    const Json* messages = Find(row.json, "messages");
    if (messages && messages->is_array()) {
      TakePrompt(row, *messages, "messages");
      // A conversation with its answer (open-instruct): the answer is what is asked for.
      if (row.messages.size() > 1 && row.messages.back().at("role") == "assistant") {
        row.messages.erase(row.messages.size() - 1);
      }
      return;
    }
    const Json* ids = Find(row.json, "ids");
    if (!ids) FailMissing(row.json, "\"prompt\", \"question\", \"messages\" or \"ids\"");
    row.ids = Ids(*ids, "ids");
  }

  std::vector<std::int32_t> Ids(const Json& value, const std::string& column) const {
    if (!value.is_array() || value.empty())
      Fail(configs::Quote(column) + " must be a list of token ids, not empty");
    std::vector<std::int32_t> ids;
    for (const Json& id : value) {
      ids.push_back(
          static_cast<std::int32_t>(configs::GetInt(id, where_ + ": " + configs::Quote(column), 0,
                                                    std::numeric_limits<std::int32_t>::max())));
    }
    return ids;
  }

  void ReadCompletion(Row& row) const {
    if (const Json* ids = Find(row.json, "completion_ids"); ids && Find(row.json, "prompt_ids")) {
      row.ids = Ids(*Find(row.json, "prompt_ids"), "prompt_ids");
      row.completion_ids = Ids(*ids, "completion_ids");
      return;
    }
    const Json* completion = Find(row.json, "completion");
    const Json* text = Find(row.json, "text");
    const Json* messages = Find(row.json, "messages");
    if (!completion && text) {
      row.completion = Text(*text, "text");
      return;
    }
    if (!completion && messages && messages->is_array()) {
      row.messages = Messages(*messages, "messages");
      return ReadTemplateColumns(row);
    }
    const std::string column = prompt_column_.empty() ? "prompt" : prompt_column_;
    const Json* prompt = Find(row.json, column);
    if (!prompt || !completion) {
      FailMissing(row.json,
                  configs::Quote(column) + " and \"completion\", \"text\" or \"messages\"");
    }
    if (prompt->is_array() != completion->is_array()) {
      Fail("\"" + column + "\" and \"completion\" must both be texts or both be messages");
    }
    TakePrompt(row, *prompt, column);
    if (completion->is_array()) {
      row.completion_messages = Messages(*completion, "completion");
    } else {
      row.completion = Text(*completion, "completion");
    }
  }

  const Json* FindAnswer(const Json& row) const {
    if (!answer_column_.empty()) {
      const Json* value = Find(row, answer_column_);
      if (!value) FailMissing(row, "column " + configs::Quote(answer_column_));
      return value;
    }
    for (const char* column : {"answer", "solution", "ground_truth", "label"}) {
      if (const Json* value = Find(row, column)) return value;
    }
    for (const auto& [outer, inner] :
         {std::pair{"reward_model", "ground_truth"}, std::pair{"metadata", "answer"}}) {
      const Json* object = Find(row, outer);
      if (const Json* value = object ? Find(*object, inner) : nullptr) return value;
    }
    return nullptr;
  }

  void ReadAnswer(Row& row) const {
    const Json* value = FindAnswer(row.json);
    if (!value) return;
    row.has_answer = true;
    row.answer = value->is_string() ? value->get<std::string>() : value->dump();
  }

  const std::string where_;
  const RowUse use_;
  const std::string& prompt_column_;
  const std::string& answer_column_;
};

}  // namespace

void ForEachJson(const std::string& path,
                 const std::function<void(Json, const std::string&, std::int64_t)>& give) {
  ForEachLine(path, [&](std::int64_t number, std::string_view line) {
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.find_first_not_of(" \t") == line.npos) return;
    const std::string where = path + ":" + std::to_string(number);
    give(configs::ParseJson(line, where), where, number);
  });
}

std::vector<Row> ReadRows(const std::string& path, RowUse use, const std::string& prompt_column,
                          const std::string& answer_column) {
  std::vector<Row> rows;
  ForEachJson(path, [&](Json json, const std::string& where, std::int64_t line) {
    rows.push_back(RowReader(where, use, prompt_column, answer_column).Read(std::move(json), line));
  });
  if (rows.empty()) throw UserError(path + ": has no rows");
  return rows;
}

Row ReadRow(Json json, const std::string& where, std::int64_t line, RowUse use,
            const std::string& prompt_column, const std::string& answer_column) {
  return RowReader(where, use, prompt_column, answer_column).Read(std::move(json), line);
}

std::vector<std::int64_t> Shuffled(std::int64_t n, std::uint64_t seed, std::uint64_t epoch) {
  // Its own key, so that no draw equals one the sampler makes with the same seed.
  const std::array<std::uint32_t, 2> key = {static_cast<std::uint32_t>(seed) ^ 0x73687566u,
                                            static_cast<std::uint32_t>(seed >> 32) ^ 0x666c6564u};
  std::uint64_t draw = 0;
  const auto next = [&] {
    const auto x = kernels::Philox(
        {static_cast<std::uint32_t>(draw), static_cast<std::uint32_t>(draw >> 32),
         static_cast<std::uint32_t>(epoch), static_cast<std::uint32_t>(epoch >> 32)},
        key);
    ++draw;
    return static_cast<std::uint64_t>(x[1]) << 32 | x[0];
  };
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::int64_t i = n - 1; i > 0; --i) {
    const auto bound = static_cast<std::uint64_t>(i) + 1;
    // Reject the incomplete last round of [0, 2^64): what is left divides evenly.
    const std::uint64_t reject = (0 - bound) % bound;
    std::uint64_t x = next();
    while (x < reject) x = next();
    std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(x % bound)]);
  }
  return order;
}

}  // namespace temper::engine
