#include "reward/lua_guard.h"

#include <bit>
#include <cstdlib>

namespace temper::reward {
namespace {

constexpr int kHookPeriod = 1000;

void Hook(lua_State* state, lua_Debug* event) {
  Guard& guard = GuardOf(state);
  guard.instructions += lua_gethookcount(state);
  const bool over = guard.instructions >= guard.max_instructions;
  if (!over && !guard.memory_failed) return;
  if (over && !guard.budget_hit && !guard.memory_failed) {
    guard.budget_hit = true;
    lua_getinfo(state, "l", event);
    guard.line = event->currentline;
  }
  // From here on every instruction fails: a pcall around this one gets no further.
  lua_sethook(state, Hook, LUA_MASKCOUNT, 1);
  if (guard.memory_failed) luaL_error(state, "not enough memory");
  luaL_error(state, "more than %I instructions", static_cast<LUAI_UACINT>(guard.max_instructions));
}

void* Allocate(void* context, void* block, std::size_t old_size, std::size_t new_size) {
  Guard& guard = *static_cast<Guard*>(context);
  if (block == nullptr) old_size = 0;  // Lua passes a type tag there
  if (new_size == 0) {
    guard.memory_used -= old_size;
    std::free(block);
    return nullptr;
  }
  if (new_size > old_size) {
    const std::size_t growth = new_size - old_size;
    if (guard.memory_failed || growth > guard.memory_cap - guard.memory_used) {
      if (guard.refused_once && !guard.memory_failed) {
        guard.memory_failed = true;
        if (guard.state != nullptr) lua_sethook(guard.state, Hook, LUA_MASKCOUNT, 1);
      }
      guard.refused_once = true;
      return nullptr;
    }
    guard.refused_once = false;
  }
  void* moved = std::realloc(block, new_size);
  if (moved == nullptr) return new_size <= old_size ? block : nullptr;  // shrinking must not fail
  guard.memory_used += new_size - old_size;
  return moved;
}

}  // namespace

void Guard::SeedRandom(std::uint64_t seed) {
  for (std::uint64_t& word : random) {  // SplitMix64
    seed += 0x9E3779B97F4A7C15u;
    std::uint64_t z = (seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    word = z ^ (z >> 31);
  }
}

Guard& GuardOf(lua_State* state) { return **static_cast<Guard**>(lua_getextraspace(state)); }

lua_State* NewState(Guard& guard) {
  lua_State* state = lua_newstate(Allocate, &guard);
  if (state == nullptr) return nullptr;
  *static_cast<Guard**>(lua_getextraspace(state)) = &guard;
  guard.state = state;
  guard.SeedRandom(guard.random_seed);
  ResetBudget(guard);
  return state;
}

void ResetBudget(Guard& guard) {
  guard.instructions = 0;
  lua_sethook(guard.state, Hook, LUA_MASKCOUNT, kHookPeriod);
}

std::uint64_t Guard::NextRandom() {
  auto& s = random;
  const std::uint64_t result = std::rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = std::rotl(s[3], 45);
  return result;
}

}  // namespace temper::reward
