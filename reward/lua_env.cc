#include "reward/lua_env.h"

#include <bit>
#include <cstring>
#include <exception>
#include <string>

#include "reward/lua_guard.h"
#include "reward/rules.h"

namespace temper::reward {
namespace {

int MathRandom(lua_State* state) {
  Guard& guard = GuardOf(state);
  const std::uint64_t bits = guard.NextRandom();
  lua_Integer low = 1, high = 0;
  switch (lua_gettop(state)) {
    case 0:
      lua_pushnumber(state, static_cast<double>(bits >> 11) * 0x1p-53);
      return 1;
    case 1:
      high = luaL_checkinteger(state, 1);
      if (high == 0) {
        lua_pushinteger(state, static_cast<lua_Integer>(bits));
        return 1;
      }
      break;
    case 2:
      low = luaL_checkinteger(state, 1);
      high = luaL_checkinteger(state, 2);
      break;
    default:
      return luaL_error(state, "wrong number of arguments");
  }
  luaL_argcheck(state, low <= high, lua_gettop(state), "interval is empty");
  const std::uint64_t range = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
  // Draws over the smallest mask that covers the range; on average fewer than two are needed.
  const std::uint64_t mask = range == 0 ? 0 : ~std::uint64_t{0} >> std::countl_zero(range);
  std::uint64_t draw = bits & mask;
  while (draw > range) draw = guard.NextRandom() & mask;
  lua_pushinteger(state, static_cast<lua_Integer>(static_cast<std::uint64_t>(low) + draw));
  return 1;
}

int MathRandomSeed(lua_State* state) {
  Guard& guard = GuardOf(state);
  guard.SeedRandom(lua_isnoneornil(state, 1)
                       ? guard.random_seed
                       : static_cast<std::uint64_t>(luaL_checkinteger(state, 1)));
  return 0;
}

int StringRep(lua_State* state) {
  std::size_t size = 0, separator_size = 0;
  const char* text = luaL_checklstring(state, 1, &size);
  const lua_Integer n = luaL_checkinteger(state, 2);
  const char* separator = luaL_optlstring(state, 3, "", &separator_size);
  if (n <= 0) {
    lua_pushliteral(state, "");
    return 1;
  }
  // Counted even for empty texts: the loop below runs n times.
  const double total = static_cast<double>(n) * static_cast<double>(size + separator_size + 1);
  if (total > static_cast<double>(kMaxRepeat)) {
    return luaL_error(state, "string.rep: the result would pass %I bytes",
                      static_cast<LUAI_UACINT>(kMaxRepeat));
  }
  luaL_Buffer buffer;
  luaL_buffinit(state, &buffer);
  for (lua_Integer i = 0; i < n; ++i) {
    if (i > 0) luaL_addlstring(&buffer, separator, separator_size);
    luaL_addlstring(&buffer, text, size);
  }
  luaL_pushresult(&buffer);
  return 1;
}

/// Pushes the text of the value at `index`, a type's name instead of an address.
void PushText(lua_State* state, int index) {
  const int type = lua_type(state, index);
  const bool plain = type < LUA_TTABLE && type != LUA_TLIGHTUSERDATA;
  if (plain) {
    luaL_tolstring(state, index, nullptr);
  } else if (luaL_getmetafield(state, index, "__tostring") != LUA_TNIL) {
    lua_pop(state, 1);
    luaL_tolstring(state, index, nullptr);
  } else {
    lua_pushstring(state, lua_typename(state, type));
  }
}

int ToString(lua_State* state) {
  luaL_checkany(state, 1);
  PushText(state, 1);
  return 1;
}

/// Upvalue 1: the library's own string.format.
int StringFormat(lua_State* state) {
  std::size_t size = 0;
  const char* format = luaL_checklstring(state, 1, &size);
  for (std::size_t i = 0; i + 1 < size; ++i) {
    if (format[i] != '%') continue;
    ++i;
    while (i < size && std::strchr("-+ #0123456789.", format[i]) != nullptr && format[i] != 0) ++i;
    if (i < size && format[i] == 'p') return luaL_error(state, "string.format: no %%p here");
  }
  const int count = lua_gettop(state);
  for (int i = 2; i <= count; ++i) {
    if (lua_type(state, i) < LUA_TTABLE && lua_type(state, i) != LUA_TLIGHTUSERDATA) continue;
    PushText(state, i);
    lua_replace(state, i);
  }
  lua_pushvalue(state, lua_upvalueindex(1));
  lua_insert(state, 1);
  lua_call(state, count, 1);
  return 1;
}

/// Upvalue 1: the library's own setmetatable. Hooks are off inside a finalizer, so there are none.
int SetMetatable(lua_State* state) {
  if (lua_type(state, 2) == LUA_TTABLE) {
    lua_pushliteral(state, "__gc");
    if (lua_rawget(state, 2) != LUA_TNIL) return luaL_error(state, "__gc is not allowed");
    lua_pop(state, 1);
  }
  lua_settop(state, 2);
  lua_pushvalue(state, lua_upvalueindex(1));
  lua_insert(state, 1);
  lua_call(state, 2, 1);
  return 1;
}

/// Upvalue 1: the script's handler. A limit's error comes out of the hook, where no other hook
/// fires: a handler that loops there would have no budget, so it is not called.
int HandleIfAllowed(lua_State* state) {
  const Guard& guard = GuardOf(state);
  if (guard.budget_hit || guard.memory_failed) return 1;
  lua_pushvalue(state, lua_upvalueindex(1));
  lua_insert(state, 1);
  lua_call(state, lua_gettop(state) - 1, 1);
  return 1;
}

/// Upvalue 1: the library's own xpcall.
int XPCall(lua_State* state) {
  luaL_checktype(state, 2, LUA_TFUNCTION);
  lua_pushvalue(state, 2);
  lua_pushcclosure(state, HandleIfAllowed, 1);
  lua_replace(state, 2);
  lua_pushvalue(state, lua_upvalueindex(1));
  lua_insert(state, 1);
  lua_call(state, lua_gettop(state) - 1, LUA_MULTRET);
  return lua_gettop(state);
}

/// Upvalue 1: the Rule.
int CallRule(lua_State* state) {
  const auto* rule = static_cast<const Rule*>(lua_touserdata(state, lua_upvalueindex(1)));
  std::size_t completion_size = 0, answer_size = 0;
  const char* completion = luaL_checklstring(state, 1, &completion_size);
  if (!lua_isnoneornil(state, 3)) {
    return luaL_error(state, "rules.%s takes (completion, answer), no options", rule->name);
  }
  if (lua_isnoneornil(state, 2)) {
    lua_pushnil(state);
    return 1;
  }
  const char* answer = luaL_checklstring(state, 2, &answer_size);
  std::string failure;
  try {
    const auto score = rule->score({completion, completion_size}, {answer, answer_size});
    score ? lua_pushnumber(state, *score) : lua_pushnil(state);
    return 1;
  } catch (const std::exception& error) {  // never Lua's own exception
    failure = error.what();
  }
  return luaL_error(state, "rules.%s: %s", rule->name, failure.c_str());
}

constexpr const char* kBase[] = {
    "assert", "error",  "getmetatable", "ipairs", "next",     "pairs", "pcall",  "rawequal",
    "rawget", "rawlen", "rawset",       "select", "tonumber", "type",  "xpcall", "_VERSION"};

/// Calls a library's opener and leaves its table on the stack.
void Open(lua_State* state, const char* name, lua_CFunction open) {
  lua_pushcfunction(state, open);
  lua_pushstring(state, name);
  lua_call(state, 1, 1);
}

void Remove(lua_State* state, const char* name) {
  lua_pushnil(state);
  lua_setfield(state, -2, name);
}

void Replace(lua_State* state, const char* name, lua_CFunction function) {
  lua_pushcfunction(state, function);
  lua_setfield(state, -2, name);
}

/// Wraps the function `name` of the table on top; the wrapper has the original as its upvalue.
void Wrap(lua_State* state, const char* name, lua_CFunction wrapper) {
  lua_getfield(state, -1, name);
  lua_pushcclosure(state, wrapper, 1);
  lua_setfield(state, -2, name);
}

void OpenString(lua_State* state, int globals) {
  Open(state, "string", luaopen_string);
  Remove(state, "dump");
  Replace(state, "rep", StringRep);
  Wrap(state, "format", StringFormat);
  // ("x"):rep and string.rep are one table; its metatable is out of reach.
  lua_pushliteral(state, "");
  lua_getmetatable(state, -1);
  lua_pushliteral(state, "locked");
  lua_setfield(state, -2, "__metatable");
  lua_pop(state, 2);
  lua_setfield(state, globals, "string");
}

}  // namespace

void OpenEnvironment(lua_State* state) {
  luaL_checkstack(state, 16, nullptr);
  lua_newtable(state);
  const int globals = lua_gettop(state);
  Open(state, "_G", luaopen_base);  // fills the state's first globals, which are then given up
  for (const char* name : kBase) {
    lua_getfield(state, -1, name);
    lua_setfield(state, globals, name);
  }
  lua_getfield(state, -1, "setmetatable");
  lua_pushcclosure(state, SetMetatable, 1);
  lua_setfield(state, globals, "setmetatable");
  lua_getfield(state, -1, "xpcall");
  lua_pushcclosure(state, XPCall, 1);
  lua_setfield(state, globals, "xpcall");
  lua_pop(state, 1);
  lua_pushcfunction(state, ToString);
  lua_setfield(state, globals, "tostring");

  OpenString(state, globals);
  Open(state, "table", luaopen_table);
  lua_setfield(state, globals, "table");
  Open(state, "utf8", luaopen_utf8);
  lua_setfield(state, globals, "utf8");
  Open(state, "math", luaopen_math);
  Replace(state, "random", MathRandom);
  Replace(state, "randomseed", MathRandomSeed);
  lua_setfield(state, globals, "math");

  lua_newtable(state);
  for (const Rule& rule : Rules()) {
    lua_pushlightuserdata(state, const_cast<Rule*>(&rule));
    lua_pushcclosure(state, CallRule, 1);
    lua_setfield(state, -2, rule.name);
  }
  lua_setfield(state, globals, "rules");

  lua_pushvalue(state, globals);
  lua_setfield(state, globals, "_G");
  lua_rawseti(state, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
}

}  // namespace temper::reward
