#pragma once
// Table functions that cannot be sent on an endless walk, and tables that cannot be written.
#include <lua.hpp>

namespace temper::reward {

/// Pushes a new `table` library. All functions work on the raw table (no metamethods: a lying __len
/// or __index changes nothing), count what they touch as instructions, and refuse ranges of more
/// than kMaxRange. sort is stable and refuses a comparison that contradicts itself.
void PushTableLibrary(lua_State* state);

/// Replaces the library table on top of the stack by a proxy that can be read and not written.
void LockTable(lua_State* state);
/// Raises an error if the value at `index` is such a proxy.
void CheckWritable(lua_State* state, int index);

constexpr lua_Integer kMaxRange = lua_Integer{1} << 22;
constexpr lua_Integer kMaxUnpack = 100000;

}  // namespace temper::reward
