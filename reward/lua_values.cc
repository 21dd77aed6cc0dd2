#include "reward/lua_values.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

namespace temper::reward {
namespace {

constexpr int kMaxDepth = 32;

void PushString(lua_State* state, const std::string& text) {
  lua_pushlstring(state, text.data(), text.size());
}

void PushJson(lua_State* state, const Json& value, int depth) {
  if (depth > kMaxDepth) luaL_error(state, "the row is nested deeper than %d", kMaxDepth);
  luaL_checkstack(state, 4, "row");
  switch (value.type()) {
    case Json::value_t::boolean:
      return lua_pushboolean(state, value.get<bool>());
    case Json::value_t::number_integer:
      return lua_pushinteger(state, value.get<std::int64_t>());
    case Json::value_t::number_unsigned:
      if (value.get<std::uint64_t>() <= INT64_MAX) {
        return lua_pushinteger(state, value.get<std::int64_t>());
      }
      return lua_pushnumber(state, value.get<double>());
    case Json::value_t::number_float:
      return lua_pushnumber(state, value.get<double>());
    case Json::value_t::string:
      return PushString(state, value.get_ref<const std::string&>());
    case Json::value_t::array:
      lua_createtable(state, static_cast<int>(std::min<std::size_t>(value.size(), 1 << 20)), 0);
      for (std::size_t i = 0; i < value.size(); ++i) {
        PushJson(state, value[i], depth + 1);
        lua_rawseti(state, -2, static_cast<lua_Integer>(i) + 1);
      }
      return;
    case Json::value_t::object:
      lua_newtable(state);
      for (const auto& [key, item] : value.items()) {
        PushString(state, key);
        PushJson(state, item, depth + 1);
        lua_rawset(state, -3);
      }
      return;
    default:
      return lua_pushnil(state);
  }
}

Json ParseText(const std::string& text, const char* what) {
  Json value = Json::parse(text, nullptr, false);
  if (value.is_discarded()) {
    throw std::invalid_argument(std::string("the sample's ") + what + " is no JSON");
  }
  return value;
}

void Invalid(Outcome* outcome, const std::string& message) {
  outcome->status = Status::kInvalidReturn;
  outcome->score.reset();
  outcome->message = message;
}

void SetScore(lua_State* state, int index, const char* what, Outcome* outcome) {
  if (lua_type(state, index) != LUA_TNUMBER) {
    return Invalid(outcome, std::string(what) + " is " +
                                (lua_isnil(state, index) ? "missing" : "a ") +
                                (lua_isnil(state, index) ? "" : luaL_typename(state, index)) +
                                "; it must be a number");
  }
  const double score = lua_tonumber(state, index);
  if (!std::isfinite(score)) {
    return Invalid(outcome, std::string(what) + (std::isnan(score) ? " is NaN" : " is infinite") +
                                "; it must be finite");
  }
  outcome->score = score;
}

void ReadTable(lua_State* state, int index, Outcome* outcome) {
  lua_pushliteral(state, "score");
  lua_rawget(state, index);
  SetScore(state, lua_gettop(state), "the returned table's `score`", outcome);
  lua_pop(state, 1);
  if (outcome->status != Status::kOk) return;
  lua_pushnil(state);
  while (lua_next(state, index) != 0) {
    if (lua_type(state, -2) == LUA_TSTRING && lua_type(state, -1) == LUA_TNUMBER) {
      std::size_t size = 0;
      const char* key = lua_tolstring(state, -2, &size);
      const std::string name(key, size);
      const double value = lua_tonumber(state, -1);
      if (size > kMaxFieldName || outcome->fields.size() >= kMaxFields || !std::isfinite(value)) {
        Invalid(outcome, "field `" + name.substr(0, kMaxFieldName) +
                             "`: at most 64 finite numbers with names of at most 64 bytes");
        lua_pop(state, 2);
        return;
      }
      if (name != "score") outcome->fields.emplace_back(name, value);
    }
    lua_pop(state, 1);
  }
  // pairs() has no order of its own.
  std::sort(outcome->fields.begin(), outcome->fields.end());
}

/// One result at stack index `at`, of `what`.
void ReadResult(lua_State* state, int at, const char* what, Outcome* outcome) {
  switch (lua_type(state, at)) {
    case LUA_TNIL:
      outcome->status = Status::kNotApplicable;
      return;
    case LUA_TNUMBER:
      return SetScore(state, at, (std::string(what) + "'s number").c_str(), outcome);
    case LUA_TTABLE:
      return ReadTable(state, at, outcome);
    default:
      return Invalid(outcome, std::string(what) + " returned a " + luaL_typename(state, at) +
                                  "; return a number, a table, or nil");
  }
}

Json ReadJsonAt(lua_State* state, int index, int depth);

Json ReadTableAsJson(lua_State* state, int index, int depth) {
  if (depth > kMaxDepth) luaL_error(state, "a table nested deeper than %d", kMaxDepth);
  luaL_checkstack(state, 4, nullptr);
  Json list = Json::array();
  const auto size = static_cast<lua_Integer>(lua_rawlen(state, index));
  for (lua_Integer i = 1; i <= size; ++i) {
    lua_rawgeti(state, index, i);
    list.push_back(ReadJsonAt(state, lua_gettop(state), depth + 1));
    lua_pop(state, 1);
  }
  std::map<std::string, Json> fields;  // in one order
  lua_pushnil(state);
  while (lua_next(state, index) != 0) {
    if (lua_type(state, -2) == LUA_TSTRING) {
      std::size_t length = 0;
      const char* const key = lua_tolstring(state, -2, &length);
      fields[std::string(key, length)] = ReadJsonAt(state, lua_gettop(state), depth + 1);
    }
    lua_pop(state, 1);
  }
  if (fields.empty()) return list;
  if (!list.empty()) luaL_error(state, "a table with both numbered and named fields");
  Json object = Json::object();
  for (auto& [key, value] : fields) object[key] = std::move(value);
  return object;
}

Json ReadJsonAt(lua_State* state, int index, int depth) {
  switch (lua_type(state, index)) {
    case LUA_TNIL:
      return nullptr;
    case LUA_TBOOLEAN:
      return lua_toboolean(state, index) != 0;
    case LUA_TNUMBER:
      if (lua_isinteger(state, index) != 0) return lua_tointeger(state, index);
      if (!std::isfinite(lua_tonumber(state, index)))
        luaL_error(state, "a number that is not finite");
      return lua_tonumber(state, index);
    case LUA_TSTRING: {
      std::size_t size = 0;
      const char* const text = lua_tolstring(state, index, &size);
      return std::string(text, size);
    }
    case LUA_TTABLE:
      return ReadTableAsJson(state, index, depth);
    default:
      luaL_error(state, "a %s has no JSON", luaL_typename(state, index));
      return nullptr;
  }
}

}  // namespace

const Json& SampleJson::Read(Cached* cached, const std::string& text, const char* what) {
  if (!cached->valid || cached->text != text) {
    cached->valid = false;
    cached->value = ParseText(text, what);
    cached->text = text;
    cached->valid = true;
  }
  return cached->value;
}

const Json& SampleJson::Prompt(const SampleInput& sample) {
  return Read(&prompt_, sample.prompt_json.empty() ? "\"\"" : sample.prompt_json, "prompt");
}

const Json& SampleJson::Row(const SampleInput& sample) {
  return Read(&row_, sample.row_json.empty() ? "{}" : sample.row_json, "row");
}

namespace {

/// Sets sample.prompt and sample.messages of the table on top.
void PushPrompt(lua_State* state, const Json& prompt) {
  std::string text;
  if (prompt.is_array()) {
    for (const Json& message : prompt) {
      if (!message.is_object() || message.value("role", Json()) != "user") continue;
      const Json content = message.value("content", Json());
      if (content.is_string()) text = content.get<std::string>();
    }
    PushJson(state, prompt, 0);
  } else {
    if (prompt.is_string()) text = prompt.get<std::string>();
    lua_createtable(state, 1, 0);
    lua_createtable(state, 0, 2);
    lua_pushliteral(state, "user");
    lua_setfield(state, -2, "role");
    PushString(state, text);
    lua_setfield(state, -2, "content");
    lua_rawseti(state, -2, 1);
  }
  lua_setfield(state, -2, "messages");
  PushString(state, text);
  lua_setfield(state, -2, "prompt");
}

}  // namespace

void PushSample(lua_State* state, const SampleInput& sample, const Json& prompt, const Json& row) {
  luaL_checkstack(state, 8, nullptr);
  lua_createtable(state, 0, 9);
  PushPrompt(state, prompt);
  PushString(state, sample.completion);
  lua_setfield(state, -2, "completion");
  lua_createtable(state, static_cast<int>(sample.completion_ids.size()), 0);
  for (std::size_t i = 0; i < sample.completion_ids.size(); ++i) {
    lua_pushinteger(state, sample.completion_ids[i]);
    lua_rawseti(state, -2, static_cast<lua_Integer>(i) + 1);
  }
  lua_setfield(state, -2, "completion_ids");
  if (sample.answer) {
    PushString(state, *sample.answer);
    lua_setfield(state, -2, "answer");
  }
  PushJson(state, row, 0);
  lua_setfield(state, -2, "row");
  PushString(state, sample.finish_reason);
  lua_setfield(state, -2, "finish_reason");
  lua_pushinteger(state, sample.version);
  lua_setfield(state, -2, "version");
  lua_pushinteger(state, sample.step);
  lua_setfield(state, -2, "step");
}

void ReadResults(lua_State* state, int count, Outcome* outcome) {
  if (count == 0) {
    return Invalid(outcome, "score() returned nothing; return a number, a table, or nil");
  }
  luaL_checkstack(state, 4, nullptr);
  ReadResult(state, lua_gettop(state) - count + 1, "score()", outcome);
}

void ReadGroupResults(lua_State* state, int count, std::vector<Outcome>* outcomes) {
  luaL_checkstack(state, 6, nullptr);
  const int first = lua_gettop(state) - count + 1;
  const auto size = static_cast<lua_Integer>(outcomes->size());
  std::string wrong;
  if (count == 0 || lua_type(state, first) != LUA_TTABLE) {
    wrong = std::string("score_group() returned ") +
            (count == 0 ? "nothing" : std::string("a ") + luaL_typename(state, first)) +
            "; return a list with a result a sample";
  } else {
    // Holes are nil results; what is beyond the last sample belongs to nobody.
    lua_pushnil(state);
    while (wrong.empty() && lua_next(state, first) != 0) {
      lua_pop(state, 1);
      const lua_Integer key = lua_isinteger(state, -1) != 0 ? lua_tointeger(state, -1) : 0;
      if (key < 1 || key > size) {
        wrong = "score_group() returned a list with a key that is no sample's number, 1 to " +
                std::to_string(size);
      }
    }
  }
  for (std::size_t i = 0; i < outcomes->size(); ++i) {
    if (!wrong.empty()) {
      Invalid(&(*outcomes)[i], wrong);
      continue;
    }
    lua_rawgeti(state, first, static_cast<lua_Integer>(i) + 1);
    ReadResult(state, lua_gettop(state), "score_group()", &(*outcomes)[i]);
    lua_pop(state, 1);
  }
}

Json ReadJson(lua_State* state, int index) {
  return ReadJsonAt(state, lua_absindex(state, index), 0);
}

}  // namespace temper::reward
