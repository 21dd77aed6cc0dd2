#pragma once
// Lua's patterns with a price on every step, where the library's own can run for hours.
#include <lua.hpp>

namespace temper::reward {

/// Replaces find, match, gmatch and gsub in the string table on top of the stack. They do what
/// Lua 5.4's manual says; kStepsAnInstruction steps of a match count as one instruction.
void OpenPatterns(lua_State* state);

}  // namespace temper::reward
