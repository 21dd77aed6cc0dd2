#pragma once
// The world of a reward script: an allow-list of functions.
#include <cstddef>
#include <cstdint>
#include <lua.hpp>

#include "reward/lua_guard.h"

namespace temper::reward {

/// Replaces the globals by the allow-list. Must run inside a protected call.
///
/// base    assert error getmetatable ipairs next pairs pcall rawequal rawget rawlen rawset select
///         setmetatable (no __gc) tonumber tostring (no addresses) type xpcall _G _VERSION;
///         print only where the guard has a place for it
/// string  all but dump; rep up to 16 MiB; format without %p; patterns count their steps
/// table   reward/lua_table.h; utf8  all; math  all, random from a generator of the sample's own
/// rules   reward/lua_rules.h
/// The library tables are read-only.
void OpenEnvironment(lua_State* state);

/// Uniform in [low, high], low <= high, from the guard's stream.
lua_Integer DrawInteger(Guard& guard, lua_Integer low, lua_Integer high);

constexpr std::size_t kMaxRepeat = std::size_t{16} << 20;

}  // namespace temper::reward
