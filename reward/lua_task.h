#pragma once
// The `rng` that prompts(rng, n) draws from, and the rows it returns.
#include <lua.hpp>
#include <string>
#include <vector>

namespace temper::reward {

/// Pushes the object rng:
///   rng:int(low, high)   an integer of the range, both ends included
///   rng:real()           in [0, 1)
///   rng:choice(list)     one of the list's values
///   rng:shuffle(list)    the same list in another order
void PushTaskRandom(lua_State* state);

/// Reads the value on top: a list of `count` tables, each with a `prompt` (a string or a list of
/// messages). Raises a Lua error that names the row.
void ReadTaskRows(lua_State* state, int count, std::vector<std::string>* rows);

}  // namespace temper::reward
