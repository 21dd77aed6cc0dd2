#include "reward/lua_task.h"

#include "reward/lua_env.h"
#include "reward/lua_guard.h"
#include "reward/lua_table.h"
#include "reward/lua_values.h"

namespace temper::reward {
namespace {

int Int(lua_State* state) {
  const lua_Integer low = luaL_checkinteger(state, 2), high = luaL_checkinteger(state, 3);
  luaL_argcheck(state, low <= high, 3, "interval is empty");
  lua_pushinteger(state, DrawInteger(GuardOf(state), low, high));
  return 1;
}

int Real(lua_State* state) {
  lua_pushnumber(state, static_cast<double>(GuardOf(state).NextRandom() >> 11) * 0x1p-53);
  return 1;
}

int Choice(lua_State* state) {
  luaL_checktype(state, 2, LUA_TTABLE);
  const auto size = static_cast<lua_Integer>(lua_rawlen(state, 2));
  luaL_argcheck(state, size > 0, 2, "the list is empty");
  lua_rawgeti(state, 2, DrawInteger(GuardOf(state), 1, size));
  return 1;
}

int Shuffle(lua_State* state) {
  luaL_checktype(state, 2, LUA_TTABLE);
  CheckWritable(state, 2);
  const auto size = static_cast<lua_Integer>(lua_rawlen(state, 2));
  Charge(state, size);
  for (lua_Integer i = size; i > 1; --i) {
    const lua_Integer j = DrawInteger(GuardOf(state), 1, i);
    lua_rawgeti(state, 2, i);
    lua_rawgeti(state, 2, j);
    lua_rawseti(state, 2, i);
    lua_rawseti(state, 2, j);
  }
  lua_settop(state, 2);
  return 1;
}

}  // namespace

void PushTaskRandom(lua_State* state) {
  constexpr luaL_Reg kFunctions[] = {
      {"int", Int}, {"real", Real}, {"choice", Choice}, {"shuffle", Shuffle}, {nullptr, nullptr}};
  luaL_newlib(state, kFunctions);
  LockTable(state);
}

void ReadTaskRows(lua_State* state, int count, std::vector<std::string>* rows) {
  if (!lua_istable(state, -1)) {
    luaL_error(state, "prompts() returned a %s; return a list of rows", luaL_typename(state, -1));
  }
  const Json list = ReadJson(state, -1);
  if (!list.is_array() || list.size() != static_cast<std::size_t>(count)) {
    luaL_error(state, "prompts(rng, %d) must return a list of %d rows", count, count);
  }
  for (std::size_t i = 0; i < list.size(); ++i) {
    const bool good = list[i].is_object() && list[i].contains("prompt") &&
                      (list[i]["prompt"].is_string() || list[i]["prompt"].is_array());
    if (!good) {
      luaL_error(state, "prompts(): row %d has no `prompt` (a text or a list of messages)",
                 static_cast<int>(i) + 1);
    }
    rows->push_back(list[i].dump(-1, ' ', false, Json::error_handler_t::replace));
  }
}

}  // namespace temper::reward
