#include "reward/lua_pairs.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "reward/lua_guard.h"

namespace temper::reward {
namespace {

/// A key's place in the order of all keys.
struct Key {
  int kind = 0;  // 0 number, 1 string, 2 boolean, 3 and up the rest
  double number = 0;
  lua_Integer integer = 0;
  bool is_integer = false;
  std::string_view text;
  std::size_t address = 0;

  Key(lua_State* state, int index) {
    switch (lua_type(state, index)) {
      case LUA_TNUMBER:
        is_integer = lua_isinteger(state, index) != 0;
        number = lua_tonumber(state, index);
        if (is_integer) integer = lua_tointeger(state, index);
        return;
      case LUA_TSTRING: {
        kind = 1;
        std::size_t size = 0;
        const char* const bytes = lua_tolstring(state, index, &size);
        text = {bytes, size};
        return;
      }
      case LUA_TBOOLEAN:
        kind = 2;
        number = lua_toboolean(state, index);
        return;
      default:
        kind = 3 + (lua_iscfunction(state, index) != 0 ? 1 : 0);
        address = reinterpret_cast<std::size_t>(lua_topointer(state, index));
    }
  }
  bool operator<(const Key& other) const {
    if (kind != other.kind) return kind < other.kind;
    if (kind == 1) return text < other.text;
    if (kind > 2) return address < other.address;
    if (is_integer && other.is_integer) return integer < other.integer;
    if (number != other.number) return number < other.number;
    return is_integer && !other.is_integer;  // 2^53 + 1 beside 2.0^53: any one order
  }
};

/// Upvalues: the sorted keys, how many were given.
int NextOfPairs(lua_State* state) {
  const lua_Integer size = static_cast<lua_Integer>(lua_rawlen(state, lua_upvalueindex(1)));
  lua_Integer at = lua_tointeger(state, lua_upvalueindex(2));
  while (at < size) {
    lua_rawgeti(state, lua_upvalueindex(1), ++at);
    lua_pushvalue(state, -1);
    lua_rawget(state, 1);
    if (lua_isnil(state, -1)) {  // removed on the way
      lua_pop(state, 2);
      continue;
    }
    lua_pushinteger(state, at);
    lua_replace(state, lua_upvalueindex(2));
    return 2;
  }
  lua_pushinteger(state, at);
  lua_replace(state, lua_upvalueindex(2));
  lua_pushnil(state);
  return 1;
}

/// Pushes a table of the keys of the table at index 1, sorted.
void PushSortedKeys(lua_State* state) {
  std::vector<std::pair<Key, lua_Integer>> keys;
  lua_newtable(state);
  const int list = lua_gettop(state);
  lua_pushnil(state);
  while (lua_next(state, 1) != 0) {
    lua_pop(state, 1);
    keys.emplace_back(Key(state, -1), static_cast<lua_Integer>(keys.size()) + 1);
    lua_pushvalue(state, -1);
    lua_rawseti(state, list, keys.back().second);
  }
  Charge(state, static_cast<std::int64_t>(keys.size()));
  std::sort(keys.begin(), keys.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  lua_createtable(state, static_cast<int>(keys.size()), 0);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    lua_rawgeti(state, list, keys[i].second);
    lua_rawseti(state, -2, static_cast<lua_Integer>(i) + 1);
  }
  lua_remove(state, list);
}

}  // namespace

int Pairs(lua_State* state) {
  luaL_checkany(state, 1);
  if (luaL_getmetafield(state, 1, "__pairs") != LUA_TNIL) {
    lua_pushvalue(state, 1);
    lua_call(state, 1, 3);
    return 3;
  }
  luaL_checktype(state, 1, LUA_TTABLE);
  PushSortedKeys(state);
  lua_pushinteger(state, 0);
  lua_pushcclosure(state, NextOfPairs, 2);
  lua_pushvalue(state, 1);
  lua_pushnil(state);
  return 3;
}

int Next(lua_State* state) {
  luaL_checktype(state, 1, LUA_TTABLE);
  lua_settop(state, 2);
  const bool from_start = lua_isnil(state, 2);
  // The smallest key above the given one; it stays at index 3.
  lua_pushnil(state);
  std::int64_t seen = 0;
  lua_pushnil(state);
  while (lua_next(state, 1) != 0) {
    lua_pop(state, 1);
    ++seen;
    const Key key(state, -1);
    if (!from_start && !(Key(state, 2) < key)) continue;
    if (!lua_isnil(state, 3) && !(key < Key(state, 3))) continue;
    lua_copy(state, -1, 3);
  }
  Charge(state, seen);
  lua_settop(state, 3);
  if (lua_isnil(state, 3)) return 1;
  lua_pushvalue(state, 3);
  lua_rawget(state, 1);
  return 2;
}

}  // namespace temper::reward
