#pragma once
// How a sample becomes a Lua table, and a script's answer an Outcome.
#include <lua.hpp>
#include <string>
#include <vector>

#include "configs/json.h"
#include "reward/sample.h"

namespace temper::reward {

/// The parsed prompt and row of the last sample: siblings share both. Throws std::invalid_argument
/// for text that is no JSON.
class SampleJson {
 public:
  const Json& Prompt(const SampleInput& sample);
  const Json& Row(const SampleInput& sample);

 private:
  struct Cached {
    std::string text;
    Json value;
    bool valid = false;
  };
  static const Json& Read(Cached* cached, const std::string& text, const char* what);
  Cached prompt_, row_;
};

/// Pushes the sample: prompt, messages, completion, completion_ids, answer, row, finish_reason,
/// version, step. A string prompt is also one user message; a list's `prompt` is its last user
/// message. JSON null becomes nil. Raises a Lua error for JSON deeper than 32; must run inside a
/// protected call.
void PushSample(lua_State* state, const SampleInput& sample, const Json& prompt, const Json& row);

/// Reads the `count` results on top of the stack: a finite number, nil, or a table with a finite
/// `score`. Never calls a metamethod.
void ReadResults(lua_State* state, int count, Outcome* outcome);

/// The same for score_group(): a list with one result for each of `outcomes`; a hole is nil.
void ReadGroupResults(lua_State* state, int count, std::vector<Outcome>* outcomes);

/// A value as JSON: a table with named fields is an object, any other a list. Raises a Lua error
/// for functions, depth over 32 and numbers that are not finite.
Json ReadJson(lua_State* state, int index);

}  // namespace temper::reward
