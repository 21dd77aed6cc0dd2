#include "reward/sandbox.h"

#include <chrono>
#include <cstring>
#include <exception>
#include <lua.hpp>
#include <memory>

#include "reward/lua_env.h"
#include "reward/lua_guard.h"
#include "reward/lua_values.h"
#include "reward/rules.h"

namespace temper::reward {
namespace {

/// What the protected body works on; it outlives the Lua state.
struct Call {
  const Job& job;
  const SampleInput* sample;  // null: only the chunk
  Guard& guard;
  Outcome& outcome;
};

std::uint64_t Fnv1a(std::uint64_t hash, const std::string& text) {
  for (unsigned char byte : text) hash = (hash ^ byte) * 0x100000001B3u;
  return hash;
}

/// Removes "NAME:12: " from the front; the line goes to outcome->line if it has none yet.
std::string StripPosition(const std::string& name, const std::string& message, int* line) {
  if (message.compare(0, name.size() + 1, name + ":") != 0) return message;
  std::size_t i = name.size() + 1;
  int found = 0;
  while (i < message.size() && message[i] >= '0' && message[i] <= '9' && found < 1000000) {
    found = found * 10 + (message[i++] - '0');
  }
  if (message.compare(i, 2, ": ") != 0) return message;
  if (*line == 0) *line = found;
  return message.substr(i + 2);
}

/// The message handler: upvalue-free, finds its call behind the registry of the guard. Notes the
/// innermost script line.
int HandleError(lua_State* state) {
  auto& outcome = *static_cast<Outcome*>(lua_touserdata(state, lua_upvalueindex(1)));
  lua_Debug frame;
  for (int level = 0; outcome.line == 0 && lua_getstack(state, level, &frame) != 0; ++level) {
    lua_getinfo(state, "l", &frame);
    if (frame.currentline > 0) outcome.line = frame.currentline;
  }
  std::size_t size = 0;
  if (lua_type(state, 1) == LUA_TSTRING) {
    const char* text = lua_tolstring(state, 1, &size);
    outcome.message.assign(text, std::min(size, kMaxMessage));
  } else {
    outcome.message = std::string("error(") + luaL_typename(state, 1) + ")";
  }
  return 1;
}

int Load(lua_State* state, const Job& job) {
  return luaL_loadbufferx(state, job.script.data(), job.script.size(), ("@" + job.name).c_str(),
                          "t");
}

/// Everything that may raise a Lua error, allocation included.
int Body(lua_State* state) {
  Call& call = *static_cast<Call*>(lua_touserdata(state, 1));
  lua_settop(state, 0);
  OpenEnvironment(state);
  if (Load(state, call.job) != LUA_OK) return lua_error(state);
  lua_call(state, 0, 0);
  lua_rawgeti(state, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  lua_pushliteral(state, "score");
  lua_rawget(state, -2);
  if (lua_type(state, -1) != LUA_TFUNCTION) {
    return luaL_error(state, "the script defines no function score(sample)");
  }
  if (call.sample == nullptr) return 0;
  const int below = lua_gettop(state) - 1;
  PushSample(state, *call.sample);
  ResetBudget(call.guard);
  lua_call(state, 1, LUA_MULTRET);
  ReadResults(state, lua_gettop(state) - below, &call.outcome);
  return 0;
}

/// Pushing the handler allocates, so even that happens in a protected call.
int Protected(lua_State* state) {
  Call& call = *static_cast<Call*>(lua_touserdata(state, 1));
  lua_pushlightuserdata(state, &call.outcome);
  lua_pushcclosure(state, HandleError, 1);
  lua_insert(state, 1);
  lua_pushcfunction(state, Body);
  lua_insert(state, 2);
  const int code = lua_pcall(state, 1, 0, 1);
  if (code == LUA_OK) return 0;
  call.outcome.status = Status::kScriptError;
  if (code == LUA_ERRMEM) call.guard.memory_failed = true;
  if (code == LUA_ERRERR && call.outcome.message.empty()) {
    call.outcome.message = "error in error handling";
  }
  return 0;
}

bool IsMemoryMessage(const std::string& message) {
  return message.find("not enough memory") != std::string::npos ||
         message.find("block too big") != std::string::npos;
}

/// What the guard saw counts more than what the script made of it.
void Judge(const Job& job, const Guard& guard, Outcome* outcome) {
  if (guard.memory_failed ||
      (outcome->status == Status::kScriptError && IsMemoryMessage(outcome->message))) {
    outcome->status = Status::kMemory;
    outcome->message = "more than " + std::to_string(job.limits.memory_mib) + " MiB";
  } else if (guard.budget_hit) {
    outcome->status = Status::kBudget;
    outcome->message = "more than " + std::to_string(job.limits.max_instructions) + " instructions";
    outcome->line = guard.line;
  } else if (outcome->status == Status::kScriptError) {
    outcome->message = StripPosition(job.name, outcome->message, &outcome->line);
  }
  if (outcome->status != Status::kOk) {
    outcome->score.reset();
    outcome->fields.clear();
  }
}

Outcome Failed(Status status, const std::string& message) {
  Outcome outcome;
  outcome.status = status;
  outcome.message = message;
  return outcome;
}

Outcome RunLua(const Job& job, const SampleInput* sample) {
  if (job.script.size() > kMaxScriptBytes) {
    return Failed(Status::kScriptError, "the script has " + std::to_string(job.script.size()) +
                                            " bytes; at most 65536 are allowed");
  }
  Outcome outcome;
  Guard guard;
  guard.memory_cap = static_cast<std::size_t>(job.limits.memory_mib) << 20;
  guard.max_instructions = job.limits.max_instructions;
  // The same sample draws the same numbers in any process.
  if (sample != nullptr) {
    guard.random_seed = Fnv1a(Fnv1a(0xCBF29CE484222325u, sample->prompt_json), sample->completion);
  }
  const std::unique_ptr<lua_State, decltype(&lua_close)> state(NewState(guard), lua_close);
  Call call{job, sample, guard, outcome};
  if (state == nullptr) {
    guard.memory_failed = true;
  } else {
    lua_pushcfunction(state.get(), Protected);
    lua_pushlightuserdata(state.get(), &call);
    if (lua_pcall(state.get(), 1, 0, 0) != LUA_OK) guard.memory_failed = true;
  }
  Judge(job, guard, &outcome);
  return outcome;
}

Outcome RunRule(const Job& job, const SampleInput& sample) {
  const Rule* rule = FindRule(job.rule);
  if (rule == nullptr) return Failed(Status::kScriptError, "there is no rule '" + job.rule + "'");
  Outcome outcome;
  if (sample.answer) outcome.score = rule->score(sample.completion, *sample.answer);
  if (!outcome.score) outcome.status = Status::kNotApplicable;
  return outcome;
}

}  // namespace

std::string_view StatusName(Status status) {
  constexpr std::string_view kNames[kStatusCount] = {"ok",      "not_applicable", "script_error",
                                                     "budget",  "timeout",        "memory",
                                                     "crashed", "invalid_return", "unavailable"};
  return kNames[static_cast<int>(status)];
}

Outcome RunFunction(const Job& job, const SampleInput& sample) {
  const auto begin = std::chrono::steady_clock::now();
  Outcome outcome;
  try {
    outcome = job.rule.empty() ? RunLua(job, &sample) : RunRule(job, sample);
  } catch (const std::bad_alloc&) {
    outcome = Failed(Status::kMemory, "the worker's address space is full");
  }
  outcome.micros = std::chrono::duration_cast<std::chrono::microseconds>(
                       std::chrono::steady_clock::now() - begin)
                       .count();
  return outcome;
}

Outcome RunCheck(const Job& job) {
  Outcome outcome;
  if (job.rule.empty()) {
    outcome = RunLua(job, nullptr);
  } else if (FindRule(job.rule) == nullptr) {
    outcome = Failed(Status::kScriptError, "there is no rule '" + job.rule + "'");
  }
  if (outcome.status == Status::kOk) outcome.score = 0.0;  // ok always carries one
  return outcome;
}

Outcome CheckSyntax(const std::string& name, const std::string& script) {
  Job job;
  job.name = name;
  job.script = script;
  if (script.size() > kMaxScriptBytes) return RunLua(job, nullptr);  // refused before anything runs
  Outcome outcome;
  Guard guard;
  guard.memory_cap = static_cast<std::size_t>(job.limits.memory_mib) << 20;
  guard.max_instructions = job.limits.max_instructions;
  const std::unique_ptr<lua_State, decltype(&lua_close)> state(NewState(guard), lua_close);
  if (state == nullptr || Load(state.get(), job) == LUA_OK) return outcome;
  outcome.status = Status::kScriptError;
  const char* message = lua_tostring(state.get(), -1);
  outcome.message = message != nullptr ? message : "it cannot be compiled";
  Judge(job, guard, &outcome);
  return outcome;
}

}  // namespace temper::reward
