#pragma once
// The table `rules` of a script.
#include <lua.hpp>

namespace temper::reward {

/// Pushes a table of all rules: rules.NAME(completion, answer [, options]) gives a number or nil.
/// `completion` is a text, or the sample (then its token ids and finish reason are known, and the
/// answer defaults to sample.answer). The texts' lengths count as instructions.
void PushRules(lua_State* state);

}  // namespace temper::reward
