#pragma once
// Tables walked in one order in every process.
#include <lua.hpp>

namespace temper::reward {

/// pairs and next. The order is: numbers ascending, strings by bytes, false, true, then the rest by
/// address, which is one order (reward/arena.h). pairs walks over the keys that are
/// there when it starts and skips those that are gone. __pairs is honoured.
int Pairs(lua_State* state);
int Next(lua_State* state);

}  // namespace temper::reward
