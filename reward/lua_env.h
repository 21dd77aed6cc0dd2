#pragma once
// The world of a reward script: an allow-list of functions.
#include <cstddef>
#include <cstdint>
#include <lua.hpp>

namespace temper::reward {

/// Replaces the globals by the allow-list. Must run inside a protected call.
///
/// base    assert error getmetatable ipairs next pairs pcall rawequal rawget rawlen rawset select
/// setmetatable (no __gc)
///         tonumber tostring (no addresses) type xpcall _G _VERSION
/// string  all but dump; rep up to 16 MiB; format without %p
/// table, utf8  all; math  all, random from a generator of the sample's own
/// rules   rules.NAME(completion, answer)
void OpenEnvironment(lua_State* state);

constexpr std::size_t kMaxRepeat = std::size_t{16} << 20;

}  // namespace temper::reward
