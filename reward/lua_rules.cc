#include "reward/lua_rules.h"

#include <exception>
#include <string>
#include <vector>

#include "reward/lua_guard.h"
#include "reward/lua_values.h"
#include "reward/rules.h"

namespace temper::reward {
namespace {

/// Pushes field `name` of the table at index 1 without metamethods.
int Field(lua_State* state, const char* name) {
  lua_pushstring(state, name);
  return lua_rawget(state, 1);
}

/// The arguments as views into Lua strings that stay on the stack.
RuleInput ReadArguments(lua_State* state, std::vector<std::int32_t>* ids) {
  RuleInput input;
  std::size_t size = 0;
  if (lua_istable(state, 1)) {
    if (Field(state, "completion") != LUA_TSTRING) {
      luaL_error(state, "the first argument is a table without `completion`; give the sample");
    }
    const char* const text = lua_tolstring(state, -1, &size);
    input.completion = {text, size};
    if (Field(state, "finish_reason") == LUA_TSTRING) {
      const char* const reason = lua_tolstring(state, -1, &size);
      input.finish_reason = {reason, size};
    }
    if (Field(state, "completion_ids") == LUA_TTABLE) {
      const auto count = static_cast<lua_Integer>(lua_rawlen(state, -1));
      for (lua_Integer i = 1; i <= count; ++i) {
        lua_rawgeti(state, -1, i);
        ids->push_back(static_cast<std::int32_t>(lua_tointeger(state, -1)));
        lua_pop(state, 1);
      }
      input.ids = *ids;
    }
    if (lua_isnoneornil(state, 2) && Field(state, "answer") != LUA_TNIL) lua_replace(state, 2);
  } else {
    const char* const text = luaL_checklstring(state, 1, &size);
    input.completion = {text, size};
  }
  if (!lua_isnoneornil(state, 2)) {
    const char* const answer = luaL_checklstring(state, 2, &size);
    input.answer = std::string_view(answer, size);
  }
  return input;
}

/// Upvalue 1: the Rule.
int CallRule(lua_State* state) {
  const auto* rule = static_cast<const Rule*>(lua_touserdata(state, lua_upvalueindex(1)));
  lua_settop(state, 3);
  if (!lua_isnil(state, 3)) luaL_checktype(state, 3, LUA_TTABLE);
  std::vector<std::int32_t> ids;
  Json options = Json::object();
  RuleInput input = ReadArguments(state, &ids);
  if (!lua_isnil(state, 3)) options = ReadJson(state, 3);
  if (options.is_array() && options.empty()) options = Json::object();
  input.options = &options;
  Charge(state, RuleCost(*rule, input));
  std::string failure;
  try {
    const auto score = RunRule(*rule, input);
    score ? lua_pushnumber(state, *score) : lua_pushnil(state);
    return 1;
  } catch (const std::exception& error) {  // never Lua's own exception
    failure = error.what();
  }
  return luaL_error(state, "rules.%s: %s", rule->name, failure.c_str());
}

}  // namespace

void PushRules(lua_State* state) {
  lua_newtable(state);
  for (const Rule& rule : Rules()) {
    lua_pushlightuserdata(state, const_cast<Rule*>(&rule));
    lua_pushcclosure(state, CallRule, 1);
    lua_setfield(state, -2, rule.name);
  }
}

}  // namespace temper::reward
