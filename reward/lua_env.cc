#include "reward/lua_env.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "reward/lua_guard.h"
#include "reward/lua_pairs.h"
#include "reward/lua_pattern.h"
#include "reward/lua_rules.h"
#include "reward/lua_table.h"
#include "reward/sample.h"

namespace temper::reward {
namespace {

int MathRandom(lua_State* state) {
  Guard& guard = GuardOf(state);
  lua_Integer low = 1, high = 0;
  switch (lua_gettop(state)) {
    case 0:
      lua_pushnumber(state, static_cast<double>(guard.NextRandom() >> 11) * 0x1p-53);
      return 1;
    case 1:
      high = luaL_checkinteger(state, 1);
      if (high == 0) {
        lua_pushinteger(state, static_cast<lua_Integer>(guard.NextRandom()));
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
  lua_pushinteger(state, DrawInteger(guard, low, high));
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
  const std::size_t times = static_cast<std::size_t>(n);
  const std::size_t bytes = times * size + (times - 1) * separator_size;
  luaL_Buffer buffer;
  char* out = luaL_buffinitsize(state, &buffer, bytes);
  for (std::size_t i = 0; i < times; ++i) {
    if (i > 0) out = std::copy_n(separator, separator_size, out);
    out = std::copy_n(text, size, out);
  }
  luaL_pushresultsize(&buffer, bytes);
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

/// Writes nothing out: what is printed goes to the one who tries the script.
int Print(lua_State* state) {
  std::string* const printed = GuardOf(state).printed;
  const int count = lua_gettop(state);
  for (int i = 1; i <= count; ++i) {
    PushText(state, i);
    std::size_t size = 0;
    const char* const text = lua_tolstring(state, -1, &size);
    if (printed->size() + size + 2 <= kMaxPrinted) {
      if (i > 1) *printed += '\t';
      printed->append(text, size);
    }
    lua_pop(state, 1);
  }
  if (printed->size() < kMaxPrinted) *printed += '\n';
  return 0;
}

/// Upvalue 1: the library's own rawset.
int RawSet(lua_State* state) {
  luaL_checktype(state, 1, LUA_TTABLE);
  CheckWritable(state, 1);
  lua_settop(state, 3);
  lua_pushvalue(state, lua_upvalueindex(1));
  lua_insert(state, 1);
  lua_call(state, 3, 1);
  return 1;
}

constexpr const char* kBase[] = {"assert", "error",    "getmetatable", "ipairs",
                                 "pcall",  "rawequal", "rawget",       "rawlen",
                                 "select", "tonumber", "type",         "_VERSION"};

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
  OpenPatterns(state);
  // ("x"):rep reads the table itself; its metatable is out of reach.
  lua_pushliteral(state, "");
  lua_getmetatable(state, -1);
  lua_pushliteral(state, "locked");
  lua_setfield(state, -2, "__metatable");
  lua_pop(state, 2);
  LockTable(state);
  lua_setfield(state, globals, "string");
}

void OpenBase(lua_State* state, int globals) {
  Open(state, "_G", luaopen_base);  // fills the state's first globals, which are then given up
  for (const char* name : kBase) {
    lua_getfield(state, -1, name);
    lua_setfield(state, globals, name);
  }
  constexpr luaL_Reg kWrapped[] = {
      {"rawset", RawSet}, {"setmetatable", SetMetatable}, {"xpcall", XPCall}};
  for (const luaL_Reg& wrapped : kWrapped) {
    lua_getfield(state, -1, wrapped.name);
    lua_pushcclosure(state, wrapped.func, 1);
    lua_setfield(state, globals, wrapped.name);
  }
  lua_pop(state, 1);
  constexpr luaL_Reg kOwn[] = {{"next", Next}, {"pairs", Pairs}, {"tostring", ToString}};
  for (const luaL_Reg& own : kOwn) {
    lua_pushcfunction(state, own.func);
    lua_setfield(state, globals, own.name);
  }
}

}  // namespace

lua_Integer DrawInteger(Guard& guard, lua_Integer low, lua_Integer high) {
  const std::uint64_t range = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
  // Draws over the smallest mask that covers the range; on average fewer than two are needed.
  const std::uint64_t mask = range == 0 ? 0 : ~std::uint64_t{0} >> std::countl_zero(range);
  std::uint64_t draw = guard.NextRandom() & mask;
  while (draw > range) draw = guard.NextRandom() & mask;
  return static_cast<lua_Integer>(static_cast<std::uint64_t>(low) + draw);
}

void OpenEnvironment(lua_State* state) {
  luaL_checkstack(state, 16, nullptr);
  lua_newtable(state);
  const int globals = lua_gettop(state);
  OpenBase(state, globals);
  if (GuardOf(state).printed != nullptr) {
    lua_pushcfunction(state, Print);
    lua_setfield(state, globals, "print");
  }
  OpenString(state, globals);
  PushTableLibrary(state);
  LockTable(state);
  lua_setfield(state, globals, "table");
  Open(state, "utf8", luaopen_utf8);
  LockTable(state);
  lua_setfield(state, globals, "utf8");
  Open(state, "math", luaopen_math);
  Replace(state, "random", MathRandom);
  Replace(state, "randomseed", MathRandomSeed);
  LockTable(state);
  lua_setfield(state, globals, "math");
  PushRules(state);
  LockTable(state);
  lua_setfield(state, globals, "rules");

  lua_pushvalue(state, globals);
  lua_setfield(state, globals, "_G");
  lua_rawseti(state, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
}

}  // namespace temper::reward
