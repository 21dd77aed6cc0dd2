#include "reward/script.h"

#include <algorithm>
#include <stdexcept>

#include "reward/lua_env.h"
#include "reward/lua_error.h"
#include "reward/lua_task.h"
#include "reward/sample_seed.h"

namespace temper::reward {
namespace {

constexpr int kPeriod = 1000;

/// Pushes the global `name`; true if it is a function.
bool PushGlobal(lua_State* state, const char* name) {
  lua_rawgeti(state, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  lua_pushstring(state, name);
  lua_rawget(state, -2);
  lua_remove(state, -2);
  return lua_type(state, -1) == LUA_TFUNCTION;
}

/// Two copies of the cap: Lua's blocks are rounded up, and freed ones are kept by size.
std::size_t ArenaBytes(const Job& job) {
  return (static_cast<std::size_t>(job.limits.memory_mib) << 21) + (std::size_t{16} << 20);
}

}  // namespace

/// What a protected body works on.
struct LuaScript::Call {
  LuaScript* script;
  Outcome* outcome;
  lua_CFunction body = nullptr;
  std::span<const SampleInput> samples = {};
  const Json* prompt = nullptr;  // of all samples, as the row
  const Json* row = nullptr;
  std::vector<Outcome>* outcomes = nullptr;
  int count = 0;
  std::vector<std::string>* made = nullptr;
};

int LuaScript::LoadBody(lua_State* state) {
  Call& call = *static_cast<Call*>(lua_touserdata(state, 1));
  lua_settop(state, 0);
  OpenEnvironment(state);
  const Job& job = call.script->job_;
  if (luaL_loadbufferx(state, job.script.data(), job.script.size(), ("@" + job.name).c_str(),
                       "t") != LUA_OK) {
    return lua_error(state);
  }
  ResetBudget(call.script->guard_);
  lua_call(state, 0, 0);
  LuaScript& script = *call.script;
  script.has_score_ = PushGlobal(state, "score");
  script.has_group_ = PushGlobal(state, "score_group");
  script.has_prompts_ = PushGlobal(state, "prompts");
  lua_settop(state, 0);
  if (!script.has_score_ && !script.has_group_) {
    return luaL_error(state, "the script defines no function score(sample)");
  }
  return 0;
}

int LuaScript::ScoreBody(lua_State* state) {
  Call& call = *static_cast<Call*>(lua_touserdata(state, 1));
  lua_settop(state, 0);
  PushGlobal(state, "score");
  PushSample(state, call.samples[0], *call.prompt, *call.row);
  ResetBudget(call.script->guard_);
  lua_call(state, 1, LUA_MULTRET);
  ReadResults(state, lua_gettop(state), call.outcome);
  return 0;
}

int LuaScript::GroupBody(lua_State* state) {
  Call& call = *static_cast<Call*>(lua_touserdata(state, 1));
  lua_settop(state, 0);
  PushGlobal(state, "score_group");
  lua_createtable(state, static_cast<int>(call.samples.size()), 0);
  for (std::size_t i = 0; i < call.samples.size(); ++i) {
    PushSample(state, call.samples[i], *call.prompt, *call.row);
    lua_rawseti(state, -2, static_cast<lua_Integer>(i) + 1);
  }
  ResetBudget(call.script->guard_);
  lua_call(state, 1, LUA_MULTRET);
  ReadGroupResults(state, lua_gettop(state), call.outcomes);
  return 0;
}

int LuaScript::PromptsBody(lua_State* state) {
  Call& call = *static_cast<Call*>(lua_touserdata(state, 1));
  lua_settop(state, 0);
  if (!PushGlobal(state, "prompts")) {
    return luaL_error(state, "the script defines no function prompts(rng, n)");
  }
  PushTaskRandom(state);
  lua_pushinteger(state, call.count);
  ResetBudget(call.script->guard_);
  lua_call(state, 2, 1);
  ReadTaskRows(state, call.count, call.made);
  return 0;
}

int LuaScript::CasesBody(lua_State* state) {
  Call& call = *static_cast<Call*>(lua_touserdata(state, 1));
  lua_settop(state, 0);
  PushGlobal(state, "cases");
  if (lua_isnil(state, -1)) return 0;
  if (!lua_istable(state, -1)) {
    return luaL_error(state, "`cases` is a %s; it must be a list of tables",
                      luaL_typename(state, -1));
  }
  const Json list = ReadJson(state, -1);
  if (!list.is_array()) return luaL_error(state, "`cases` must be a list of tables");
  for (const Json& item : list) {
    call.made->push_back(item.dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  return 0;
}

/// Pushing the handler allocates, so even that happens in a protected call.
int LuaScript::Protected(lua_State* state) {
  Call& call = *static_cast<Call*>(lua_touserdata(state, 1));
  lua_pushlightuserdata(state, call.outcome);
  lua_pushcclosure(state, HandleError, 1);
  lua_insert(state, 1);
  lua_pushcfunction(state, call.body);
  lua_insert(state, 2);
  const int code = lua_pcall(state, 1, 0, 1);
  if (code == LUA_OK) return 0;
  call.outcome->status = Status::kScriptError;
  if (code == LUA_ERRMEM) call.script->guard_.memory_failed = true;
  if (code == LUA_ERRERR && call.outcome->message.empty()) {
    call.outcome->message = "error in error handling";
  }
  return 0;
}

void LuaScript::Run(lua_CFunction body, Call* call) {
  call->body = body;
  lua_State* const state = guard_.state;
  lua_pushcfunction(state, Protected);
  lua_pushlightuserdata(state, call);
  if (lua_pcall(state, 1, 0, 0) != LUA_OK) guard_.memory_failed = true;
  call->outcome->instructions = guard_.instructions;
}

/// What the guard saw counts more than what the script made of it.
void LuaScript::Judge(Outcome* outcome) const {
  if (guard_.memory_failed ||
      (outcome->status == Status::kScriptError && IsMemoryMessage(outcome->message))) {
    outcome->status = Status::kMemory;
    outcome->message = "more than " + std::to_string(job_.limits.memory_mib) + " MiB";
  } else if (guard_.budget_hit) {
    outcome->status = Status::kBudget;
    outcome->message = "more than " + std::to_string(guard_.max_instructions) + " instructions";
    outcome->line = guard_.line;
  } else if (outcome->status == Status::kScriptError) {
    outcome->message = StripPosition(job_.name, outcome->message, &outcome->line);
  }
  if (outcome->status != Status::kOk) {
    outcome->score.reset();
    outcome->fields.clear();
  }
}

void LuaScript::TakeTrace(Outcome* outcome) {
  if (!job_.trace) return;
  outcome->trace.printed = printed_;
  for (std::size_t line = 1; line < line_counts_.size(); ++line) {
    if (line_counts_[line] == 0 || outcome->trace.lines.size() >= kMaxTraceLines) continue;
    outcome->trace.lines.emplace_back(static_cast<std::int32_t>(line), line_counts_[line]);
  }
}

LuaScript::LuaScript(const Job& job) : job_(job), arena_(ArenaBytes(job)) {
  if (job.script.size() > kMaxScriptBytes) {
    loaded_ = Failed(Status::kScriptError, "the script has " + std::to_string(job.script.size()) +
                                               " bytes; at most 65536 are allowed");
    return;
  }
  guard_.arena = &arena_;
  guard_.memory_cap = static_cast<std::size_t>(job.limits.memory_mib) << 20;
  guard_.max_instructions = job.limits.max_instructions;
  guard_.period = job.trace ? 1 : kPeriod;
  if (job.trace) {
    guard_.printed = &printed_;
    guard_.line_counts = &line_counts_;
  }
  if (NewState(guard_) == nullptr) {
    guard_.memory_failed = true;
    Judge(&loaded_);
    return;
  }
  Call call{this, &loaded_};
  Run(LoadBody, &call);
  Judge(&loaded_);
  if (loaded_.status != Status::kOk) return;
  loaded_.score = 0.0;  // ok always carries one
  lua_gc(guard_.state, LUA_GCCOLLECT);
  arena_.Save();
  saved_used_ = guard_.memory_used;
}

void LuaScript::Begin(std::int64_t share, std::uint64_t random_seed) {
  arena_.Restore();
  guard_.memory_used = saved_used_;
  guard_.memory_work = 0;
  guard_.refused_once = guard_.memory_failed = guard_.budget_hit = false;
  guard_.line = 0;
  guard_.period = job_.trace ? 1 : kPeriod;
  guard_.max_instructions = job_.limits.max_instructions * share;
  guard_.random_seed = random_seed;
  guard_.SeedRandom(random_seed);
  printed_.clear();
  line_counts_.clear();
  ResetBudget(guard_);
}

Outcome LuaScript::Score(const SampleInput& sample) {
  if (loaded_.status != Status::kOk) return loaded_;
  if (!has_score_) return ScoreGroup({&sample, 1})[0];
  Outcome outcome;
  try {
    Begin(1, SeedOf({&sample, 1}));
    Call call{this, &outcome};
    call.samples = {&sample, 1};
    call.prompt = &json_.Prompt(sample);
    call.row = &json_.Row(sample);
    Run(ScoreBody, &call);
  } catch (const std::invalid_argument& error) {
    return Failed(Status::kScriptError, error.what());
  }
  Judge(&outcome);
  TakeTrace(&outcome);
  return outcome;
}

std::vector<Outcome> LuaScript::ScoreGroup(std::span<const SampleInput> samples) {
  std::vector<Outcome> outcomes(samples.size());
  if (loaded_.status != Status::kOk || !has_group_ || samples.empty()) {
    for (std::size_t i = 0; i < samples.size(); ++i) outcomes[i] = Score(samples[i]);
    return outcomes;
  }
  Outcome whole;
  try {
    Begin(static_cast<std::int64_t>(samples.size()), SeedOf(samples));
    Call call{this, &whole};
    call.samples = samples;
    call.prompt = &json_.Prompt(samples[0]);
    call.row = &json_.Row(samples[0]);
    call.outcomes = &outcomes;
    Run(GroupBody, &call);
  } catch (const std::invalid_argument& error) {
    whole = Failed(Status::kScriptError, error.what());
  }
  Judge(&whole);
  if (whole.status != Status::kOk) {
    std::fill(outcomes.begin(), outcomes.end(), whole);
  } else {
    TakeTrace(&outcomes[0]);
  }
  for (Outcome& outcome : outcomes) outcome.instructions = whole.instructions;
  return outcomes;
}

LuaScript::Rows LuaScript::MakeRows(lua_CFunction body, int n) {
  Rows rows;
  Call call{this, &rows.outcome};
  call.count = n;
  call.made = &rows.rows;
  Run(body, &call);
  Judge(&rows.outcome);
  if (rows.outcome.status == Status::kOk) {
    rows.outcome.score = 0.0;
  } else {
    rows.rows.clear();
  }
  return rows;
}

LuaScript::Rows LuaScript::Prompts(std::uint64_t seed, std::uint64_t batch, int n) {
  if (loaded_.status != Status::kOk) return {loaded_, {}};
  // A row may take as much work as the scoring of a sample.
  Begin(n, seed * 0x9E3779B97F4A7C15u + batch + 1);
  return MakeRows(PromptsBody, n);
}

LuaScript::Rows LuaScript::Cases() {
  if (loaded_.status != Status::kOk) return {loaded_, {}};
  Begin(1, 0);
  return MakeRows(CasesBody, 0);
}

}  // namespace temper::reward
