#pragma once
// A lua_State that no script can push past its memory or its instructions.
#include <cstddef>
#include <cstdint>
#include <lua.hpp>
#include <string>
#include <vector>

#include "reward/arena.h"

namespace temper::reward {

/// Limits of one lua_State, and whether it ran into one. Both are sticky: a script cannot catch
/// them with pcall.
struct Guard {
  Arena* arena = nullptr;
  std::size_t memory_cap = 0, memory_used = 0;
  std::size_t memory_work = 0;  // bytes asked for and not yet counted as instructions
  bool refused_once = false;    // Lua collects garbage and asks again
  bool memory_failed = false;   // it asked again in vain
  std::int64_t max_instructions = 0, instructions = 0;
  int period = 1000;  // instructions between two looks
  bool budget_hit = false;
  int line = 0;  // where the budget ended
  lua_State* state = nullptr;
  std::uint64_t random[4] = {};  // xoshiro256**
  std::uint64_t random_seed = 0;
  std::vector<std::int64_t>* line_counts = nullptr;  // instructions a line, if wanted; period 1

  std::string* printed = nullptr;  // what print() wrote, if there is a print()

  void SeedRandom(std::uint64_t seed);
  std::uint64_t NextRandom();
};

// What counts as one Lua instruction where none runs.
constexpr std::int64_t kBytesAnInstruction = 256;  // allocated, copied or searched
constexpr std::int64_t kStepsAnInstruction = 8;    // of a pattern match

/// The guard of a state made by NewState.
Guard& GuardOf(lua_State* state);

/// A state with no library yet, its memory in guard.arena and capped, its count hook set. Null when
/// memory_cap is too small.
lua_State* NewState(Guard& guard);

/// Starts the instruction count from 0.
void ResetBudget(Guard& guard);

/// Counts work that a C function did. Raises the Lua error of the budget when it is used up.
void Charge(lua_State* state, std::int64_t instructions);

}  // namespace temper::reward
