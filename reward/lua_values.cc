#include "reward/lua_values.h"

#include <algorithm>
#include <cmath>

#include "configs/json.h"

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

Json ParseText(lua_State* state, const std::string& text, const char* what) {
  Json value = Json::parse(text, nullptr, false);
  if (value.is_discarded()) luaL_error(state, "the sample's %s is no JSON", what);
  return value;
}

/// Sets sample.prompt and sample.messages of the table on top.
void PushPrompt(lua_State* state, const std::string& prompt_json) {
  Json prompt = prompt_json.empty() ? Json("") : ParseText(state, prompt_json, "prompt");
  std::string text;
  if (prompt.is_string()) {
    text = prompt.get<std::string>();
    prompt = Json::array({Json{{"role", "user"}, {"content", text}}});
  } else if (prompt.is_array()) {
    for (const Json& message : prompt) {
      if (!message.is_object() || message.value("role", Json()) != "user") continue;
      const Json content = message.value("content", Json());
      if (content.is_string()) text = content.get<std::string>();
    }
  }
  PushString(state, text);
  lua_setfield(state, -2, "prompt");
  PushJson(state, prompt, 0);
  lua_setfield(state, -2, "messages");
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
  SetScore(state, lua_gettop(state), "score() returned a table whose `score`", outcome);
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

}  // namespace

void PushSample(lua_State* state, const SampleInput& sample) {
  luaL_checkstack(state, 8, nullptr);
  lua_newtable(state);
  PushPrompt(state, sample.prompt_json);
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
  PushJson(state,
           sample.row_json.empty() ? Json::object() : ParseText(state, sample.row_json, "row"), 0);
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
  const int first = lua_gettop(state) - count + 1;
  luaL_checkstack(state, 4, nullptr);
  switch (lua_type(state, first)) {
    case LUA_TNIL:
      outcome->status = Status::kNotApplicable;
      return;
    case LUA_TNUMBER:
      return SetScore(state, first, "score()'s number", outcome);
    case LUA_TTABLE:
      return ReadTable(state, first, outcome);
    default:
      return Invalid(outcome, std::string("score() returned a ") + luaL_typename(state, first) +
                                  "; return a number, a table, or nil");
  }
}

}  // namespace temper::reward
