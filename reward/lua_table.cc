#include "reward/lua_table.h"

#include <algorithm>
#include <vector>

#include "reward/lua_guard.h"

namespace temper::reward {
namespace {

const char kLock = 0;  // its address marks a proxy's metatable

int RefuseWrite(lua_State* state) { return luaL_error(state, "the library is read-only"); }

lua_Integer Size(lua_State* state, int index) {
  luaL_checktype(state, index, LUA_TTABLE);
  return static_cast<lua_Integer>(lua_rawlen(state, index));
}

void CheckTarget(lua_State* state, int index) {
  luaL_checktype(state, index, LUA_TTABLE);
  CheckWritable(state, index);
}

/// first..last as a count; an error when it is too long to walk.
lua_Integer Range(lua_State* state, const char* what, lua_Integer first, lua_Integer last) {
  if (first > last) return 0;
  const auto count = static_cast<lua_Unsigned>(last) - static_cast<lua_Unsigned>(first);
  if (count >= static_cast<lua_Unsigned>(kMaxRange)) {
    luaL_error(state, "table.%s: a range of more than %I elements", what,
               static_cast<LUAI_UACINT>(kMaxRange));
  }
  Charge(state, static_cast<std::int64_t>(count) / 4);
  return static_cast<lua_Integer>(count) + 1;
}

int Insert(lua_State* state) {
  CheckTarget(state, 1);
  const lua_Integer end = Size(state, 1) + 1;
  lua_Integer at = end;
  switch (lua_gettop(state)) {
    case 2:
      break;
    case 3:
      at = luaL_checkinteger(state, 2);
      luaL_argcheck(state, at >= 1 && at <= end, 2, "position out of bounds");
      Range(state, "insert", at, end);
      for (lua_Integer i = end; i > at; --i) {
        lua_rawgeti(state, 1, i - 1);
        lua_rawseti(state, 1, i);
      }
      break;
    default:
      return luaL_error(state, "wrong number of arguments to 'insert'");
  }
  lua_rawseti(state, 1, at);
  return 0;
}

int Remove(lua_State* state) {
  CheckTarget(state, 1);
  const lua_Integer size = Size(state, 1);
  lua_Integer at = luaL_optinteger(state, 2, size);
  if (lua_gettop(state) > 1) {
    luaL_argcheck(state, (size + 1 == at) || (at >= 1 && at <= size) || (size == 0 && at == 0), 2,
                  "position out of bounds");
  }
  lua_rawgeti(state, 1, at);
  Range(state, "remove", at, size);
  for (; at < size; ++at) {
    lua_rawgeti(state, 1, at + 1);
    lua_rawseti(state, 1, at);
  }
  if (at >= 1) {
    lua_pushnil(state);
    lua_rawseti(state, 1, at);
  }
  return 1;
}

int Concat(lua_State* state) {
  const lua_Integer size = Size(state, 1);
  std::size_t separator_size = 0;
  const char* const separator = luaL_optlstring(state, 2, "", &separator_size);
  const lua_Integer first = luaL_optinteger(state, 3, 1);
  const lua_Integer count = Range(state, "concat", first, luaL_optinteger(state, 4, size));
  luaL_Buffer buffer;
  luaL_buffinit(state, &buffer);
  for (lua_Integer i = 0; i < count; ++i) {
    if (i > 0) luaL_addlstring(&buffer, separator, separator_size);
    lua_rawgeti(state, 1, first + i);
    if (lua_isstring(state, -1) == 0) {
      luaL_error(state, "invalid value (%s at index %I) in table for 'concat'",
                 luaL_typename(state, -1), static_cast<LUAI_UACINT>(first + i));
    }
    luaL_addvalue(&buffer);
  }
  luaL_pushresult(&buffer);
  return 1;
}

int Pack(lua_State* state) {
  const int count = lua_gettop(state);
  lua_createtable(state, count, 1);
  lua_insert(state, 1);
  for (int i = count; i >= 1; --i) lua_rawseti(state, 1, i);
  lua_pushinteger(state, count);
  lua_setfield(state, 1, "n");
  return 1;
}

int Unpack(lua_State* state) {
  const lua_Integer size = Size(state, 1);
  const lua_Integer first = luaL_optinteger(state, 2, 1);
  const lua_Integer last = lua_isnoneornil(state, 3) ? size : luaL_checkinteger(state, 3);
  const lua_Integer count = Range(state, "unpack", first, last);
  if (count > kMaxUnpack || lua_checkstack(state, static_cast<int>(count)) == 0) {
    return luaL_error(state, "too many results to unpack");
  }
  for (lua_Integer i = 0; i < count; ++i) lua_rawgeti(state, 1, first + i);
  return static_cast<int>(count);
}

int Move(lua_State* state) {
  luaL_checktype(state, 1, LUA_TTABLE);
  const lua_Integer first = luaL_checkinteger(state, 2), last = luaL_checkinteger(state, 3);
  const lua_Integer to = luaL_checkinteger(state, 4);
  const int target = lua_isnoneornil(state, 5) ? 1 : 5;
  CheckTarget(state, target);
  const lua_Integer count = Range(state, "move", first, last);
  luaL_argcheck(state, count == 0 || to <= LUA_MAXINTEGER - count + 1, 4,
                "destination wrap around");
  const bool ascending = to > last || to <= first || target != 1;
  for (lua_Integer k = 0; k < count; ++k) {
    const lua_Integer i = ascending ? k : count - 1 - k;
    lua_rawgeti(state, 1, first + i);
    lua_rawseti(state, target, to + i);
  }
  lua_pushvalue(state, target);
  return 1;
}

/// Compares table[i] < table[j] of the copies in the table at index 3.
bool Less(lua_State* state, lua_Integer i, lua_Integer j) {
  Charge(state, 1);
  const bool own = lua_isnil(state, 2);
  if (!own) lua_pushvalue(state, 2);
  lua_rawgeti(state, 3, i);
  lua_rawgeti(state, 3, j);
  bool less = false;
  if (own) {
    less = lua_compare(state, -2, -1, LUA_OPLT) != 0;
    lua_pop(state, 2);
  } else {
    lua_call(state, 2, 1);
    less = lua_toboolean(state, -1) != 0;
    lua_pop(state, 1);
  }
  return less;
}

/// Merge sort of positions: each comparison is of two copies, so that a comparison that writes into
/// the table cannot mislead it.
int Sort(lua_State* state) {
  CheckTarget(state, 1);
  const lua_Integer size = Size(state, 1);
  Range(state, "sort", 1, size);
  if (!lua_isnoneornil(state, 2)) luaL_checktype(state, 2, LUA_TFUNCTION);
  lua_settop(state, 2);
  lua_createtable(state, static_cast<int>(size), 0);
  std::vector<lua_Integer> order(static_cast<std::size_t>(size)), merged(order.size());
  for (lua_Integer i = 1; i <= size; ++i) {
    lua_rawgeti(state, 1, i);
    lua_rawseti(state, 3, i);
    order[static_cast<std::size_t>(i - 1)] = i;
  }
  const std::size_t n = order.size();
  for (std::size_t width = 1; width < n; width *= 2) {
    for (std::size_t low = 0; low < n; low += 2 * width) {
      const std::size_t middle = std::min(low + width, n), high = std::min(low + 2 * width, n);
      std::size_t a = low, b = middle;
      for (std::size_t out = low; out < high; ++out) {
        const bool second = a == middle || (b < high && Less(state, order[b], order[a]));
        merged[out] = second ? order[b++] : order[a++];
      }
    }
    order.swap(merged);
  }
  for (std::size_t i = 1; i < n; ++i) {
    if (Less(state, order[i], order[i - 1])) {
      return luaL_error(state, "invalid order function for sorting");
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    lua_rawgeti(state, 3, order[i]);
    lua_rawseti(state, 1, static_cast<lua_Integer>(i) + 1);
  }
  return 0;
}

}  // namespace

void LockTable(lua_State* state) {
  lua_newtable(state);  // the proxy
  lua_createtable(state, 0, 4);
  lua_pushvalue(state, -3);
  lua_setfield(state, -2, "__index");
  lua_pushcfunction(state, RefuseWrite);
  lua_setfield(state, -2, "__newindex");
  lua_pushliteral(state, "locked");
  lua_setfield(state, -2, "__metatable");
  lua_pushboolean(state, 1);
  lua_rawsetp(state, -2, &kLock);
  lua_setmetatable(state, -2);
  lua_remove(state, -2);
}

void CheckWritable(lua_State* state, int index) {
  if (lua_getmetatable(state, index) == 0) return;
  const bool locked = lua_rawgetp(state, -1, &kLock) != LUA_TNIL;
  lua_pop(state, 2);
  if (locked) RefuseWrite(state);
}

void PushTableLibrary(lua_State* state) {
  constexpr luaL_Reg kFunctions[] = {{"concat", Concat}, {"insert", Insert}, {"move", Move},
                                     {"pack", Pack},     {"remove", Remove}, {"sort", Sort},
                                     {"unpack", Unpack}, {nullptr, nullptr}};
  luaL_newlib(state, kFunctions);
}

}  // namespace temper::reward
