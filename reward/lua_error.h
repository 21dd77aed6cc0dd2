#pragma once
// What a script's error says: its message, its line, whether it was memory.
#include <lua.hpp>
#include <string>

namespace temper::reward {

/// A message handler; upvalue 1 is the Outcome (light userdata). Notes the message, kMaxMessage
/// bytes of it, and the innermost script line. No metamethod runs: an error that is no string is
/// named by its type.
int HandleError(lua_State* state);

/// Removes "NAME:12: " from the front; the line goes to *line if that has none (0) yet.
std::string StripPosition(const std::string& name, const std::string& message, int* line);

/// Lua's own words for an allocation that failed.
bool IsMemoryMessage(const std::string& message);

}  // namespace temper::reward
