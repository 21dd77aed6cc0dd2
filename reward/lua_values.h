#pragma once
// How a sample becomes a Lua table, and a script's answer an Outcome.
#include <lua.hpp>

#include "reward/sample.h"

namespace temper::reward {

/// Pushes the sample: prompt, messages, completion, completion_ids, answer, row, finish_reason,
/// version, step. A string prompt is also one user message; a list's `prompt` is its last user
/// message. JSON null becomes nil. Raises a Lua error for JSON deeper than 32; must run inside a
/// protected call.
void PushSample(lua_State* state, const SampleInput& sample);

/// Reads the `count` results on top of the stack: a finite number, nil, or a table with a finite
/// `score`. Never calls a metamethod.
void ReadResults(lua_State* state, int count, Outcome* outcome);

}  // namespace temper::reward
