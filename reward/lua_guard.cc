#include "reward/lua_guard.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

namespace temper::reward {
namespace {

constexpr std::size_t kMaxLines = 1 << 16;

/// From here on every instruction fails: a pcall around this one gets no further.
void MakeSticky(Guard& guard);

int CurrentLine(lua_State* state) {
  lua_Debug frame;
  for (int level = 0; lua_getstack(state, level, &frame) != 0; ++level) {
    lua_getinfo(state, "l", &frame);
    if (frame.currentline > 0) return frame.currentline;
  }
  return 0;
}

[[noreturn]] void Raise(lua_State* state, Guard& guard) {
  MakeSticky(guard);
  if (guard.memory_failed) luaL_error(state, "not enough memory");
  luaL_error(state, "more than %I instructions", static_cast<LUAI_UACINT>(guard.max_instructions));
  std::abort();  // luaL_error does not return
}

void Count(lua_State* state, Guard& guard, std::int64_t instructions) {
  guard.instructions +=
      instructions + static_cast<std::int64_t>(guard.memory_work) / kBytesAnInstruction;
  guard.memory_work %= kBytesAnInstruction;
  const bool over = guard.instructions >= guard.max_instructions;
  if (!over && !guard.memory_failed) return;
  if (over && !guard.budget_hit && !guard.memory_failed) {
    guard.budget_hit = true;
    guard.line = CurrentLine(state);
  }
  Raise(state, guard);
}

void Hook(lua_State* state, lua_Debug* event) {
  Guard& guard = GuardOf(state);
  if (guard.line_counts != nullptr) {
    lua_getinfo(state, "l", event);
    const auto line = static_cast<std::size_t>(std::max(event->currentline, 0));
    if (line < kMaxLines) {
      if (guard.line_counts->size() <= line) guard.line_counts->resize(line + 1);
      (*guard.line_counts)[line] += lua_gethookcount(state);
    }
  }
  // A count of 1 that was set to look at once does not stay.
  const int count = lua_gethookcount(state);
  if (count != guard.period) lua_sethook(state, Hook, LUA_MASKCOUNT, guard.period);
  Count(state, guard, count);
}

void LookAtOnce(Guard& guard) {
  if (guard.state != nullptr) lua_sethook(guard.state, Hook, LUA_MASKCOUNT, 1);
}

void MakeSticky(Guard& guard) {
  guard.period = 1;
  LookAtOnce(guard);
}

bool Refuse(Guard& guard) {
  if (guard.refused_once && !guard.memory_failed) {
    guard.memory_failed = true;
    MakeSticky(guard);
  }
  guard.refused_once = true;
  return false;
}

/// True if `growth` more bytes may be taken.
bool Admit(Guard& guard, std::size_t growth) {
  if (guard.memory_failed || growth > guard.memory_cap - guard.memory_used) return Refuse(guard);
  guard.memory_work += growth;
  // Copying and joining happen inside one instruction; the hook alone would look too late.
  const auto work = static_cast<std::int64_t>(guard.memory_work) / kBytesAnInstruction;
  if (work > guard.max_instructions - guard.instructions && work > guard.period) LookAtOnce(guard);
  return true;
}

void* Allocate(void* context, void* block, std::size_t old_size, std::size_t new_size) {
  Guard& guard = *static_cast<Guard*>(context);
  if (block == nullptr) old_size = 0;  // Lua passes a type tag there
  if (new_size == 0) {
    guard.memory_used -= old_size;
    if (old_size > 0) guard.arena->Free(block, old_size);
    return nullptr;
  }
  if (new_size > old_size && !Admit(guard, new_size - old_size)) return nullptr;
  void* place = block;
  if (old_size == 0 || Arena::BlockSize(old_size) != Arena::BlockSize(new_size)) {
    place = guard.arena->Allocate(new_size);
    if (place == nullptr && new_size > old_size) {
      Refuse(guard);
      return nullptr;
    }
    if (place == nullptr) {
      place = block;  // shrinking must not fail: it stays where it is, with room to spare
    } else if (old_size > 0) {
      std::memcpy(place, block, std::min(old_size, new_size));
      guard.arena->Free(block, old_size);
    }
  }
  guard.refused_once = false;
  guard.memory_used += new_size - old_size;
  return place;
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
  guard.memory_work = 0;
  lua_sethook(guard.state, Hook, LUA_MASKCOUNT, guard.period);
}

void Charge(lua_State* state, std::int64_t instructions) {
  Count(state, GuardOf(state), instructions);
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
