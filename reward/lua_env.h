#pragma once
// The world of a reward script: an allow-list of functions, a memory cap, an instruction budget.
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
};

/// The guard of a state made by NewState.
Guard& GuardOf(lua_State* state);

/// A state with no library yet, its allocator capped, its count hook set. Null when memory_cap is
/// too small.
lua_State* NewState(Guard& guard);

/// Starts the instruction count from 0.
void ResetBudget(Guard& guard);

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
