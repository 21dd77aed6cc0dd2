#pragma once
// A lua_State that no script can push past its memory or its instructions.
#include <cstddef>
#include <cstdint>
#include <lua.hpp>

namespace temper::reward {

/// Limits of one lua_State, and whether it ran into one. Both are sticky: a script cannot catch
/// them with pcall.
struct Guard {
  std::size_t memory_cap = 0, memory_used = 0;
  bool refused_once = false;   // Lua collects garbage and asks again
  bool memory_failed = false;  // it asked again in vain
  std::int64_t max_instructions = 0, instructions = 0;
  bool budget_hit = false;
  int line = 0;  // where the budget ended
  lua_State* state = nullptr;
  std::uint64_t random[4] = {};  // xoshiro256**
  std::uint64_t random_seed = 0;

  void SeedRandom(std::uint64_t seed);
  std::uint64_t NextRandom();
};

/// The guard of a state made by NewState.
Guard& GuardOf(lua_State* state);

/// A state with no library yet, its allocator capped, its count hook set. Null when memory_cap is
/// too small.
lua_State* NewState(Guard& guard);

/// Starts the instruction count from 0.
void ResetBudget(Guard& guard);

}  // namespace temper::reward
