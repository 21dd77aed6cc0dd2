#include "reward/sandbox.h"

#include <chrono>
#include <exception>
#include <lua.hpp>
#include <new>

#include "reward/rules.h"
#include "reward/script.h"

namespace temper::reward {
namespace {

using Clock = std::chrono::steady_clock;

std::int64_t Micros(Clock::time_point since) {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - since).count();
}

}  // namespace

Outcome Failed(Status status, const std::string& message) {
  Outcome outcome;
  outcome.status = status;
  outcome.message = message;
  return outcome;
}

std::string_view StatusName(Status status) {
  constexpr std::string_view kNames[kStatusCount] = {"ok",      "not_applicable", "script_error",
                                                     "budget",  "timeout",        "memory",
                                                     "crashed", "invalid_return", "unavailable"};
  return kNames[static_cast<int>(status)];
}

Function::Function(Job job) : job_(std::move(job)) {
  if (job_.rule.empty()) {
    try {
      script_ = std::make_unique<LuaScript>(job_);
      loaded_ = script_->loaded();
    } catch (const std::bad_alloc&) {
      loaded_ = Failed(Status::kMemory, "the worker's address space is full");
    }
    return;
  }
  rule_ = FindRule(job_.rule);
  if (rule_ == nullptr) {
    loaded_ = Failed(Status::kScriptError, "there is no rule '" + job_.rule + "'");
    return;
  }
  try {
    if (!job_.options.empty()) options_ = Json::parse(job_.options);
    CheckRuleOptions(*rule_, options_);
    loaded_.score = 0.0;  // ok always carries one
  } catch (const std::exception& error) {
    loaded_ = Failed(Status::kScriptError, error.what());
  }
}

Function::Function(Function&&) noexcept = default;
Function::~Function() = default;

bool Function::scores_groups() const { return script_ != nullptr && script_->scores_groups(); }

Outcome Function::ScoreRule(const SampleInput& sample) const {
  RuleInput input;
  input.completion = sample.completion;
  if (sample.answer) input.answer = *sample.answer;
  input.ids = sample.completion_ids;
  input.finish_reason = sample.finish_reason;
  input.options = &options_;
  Outcome outcome;
  try {
    outcome.score = RunRule(*rule_, input);
  } catch (const std::invalid_argument& error) {
    return Failed(Status::kScriptError, error.what());
  }
  if (!outcome.score) outcome.status = Status::kNotApplicable;
  return outcome;
}

Outcome Function::Score(const SampleInput& sample) {
  if (loaded_.status != Status::kOk) return loaded_;
  const auto begin = Clock::now();
  Outcome outcome;
  try {
    outcome = script_ != nullptr ? script_->Score(sample) : ScoreRule(sample);
  } catch (const std::bad_alloc&) {
    outcome = Failed(Status::kMemory, "the worker's address space is full");
  }
  outcome.micros = Micros(begin);
  return outcome;
}

std::vector<Outcome> Function::ScoreGroup(std::span<const SampleInput> samples) {
  std::vector<Outcome> outcomes;
  if (!scores_groups()) {
    for (const SampleInput& sample : samples) outcomes.push_back(Score(sample));
    return outcomes;
  }
  const auto begin = Clock::now();
  try {
    outcomes = script_->ScoreGroup(samples);
  } catch (const std::bad_alloc&) {
    outcomes.assign(samples.size(), Failed(Status::kMemory, "the worker's address space is full"));
  }
  const std::int64_t micros = Micros(begin);
  for (Outcome& outcome : outcomes) outcome.micros = micros;
  return outcomes;
}

Outcome Function::Prompts(std::uint64_t seed, std::uint64_t batch, int n,
                          std::vector<std::string>* rows) {
  if (loaded_.status != Status::kOk) return loaded_;
  if (script_ == nullptr) return Failed(Status::kScriptError, "a rule makes no prompts");
  try {
    LuaScript::Rows made = script_->Prompts(seed, batch, n);
    *rows = std::move(made.rows);
    return made.outcome;
  } catch (const std::bad_alloc&) {
    return Failed(Status::kMemory, "the worker's address space is full");
  }
}

Outcome Function::Cases(std::vector<std::string>* rows) {
  if (loaded_.status != Status::kOk || script_ == nullptr) return loaded_;
  LuaScript::Rows made = script_->Cases();
  *rows = std::move(made.rows);
  return made.outcome;
}

Outcome RunFunction(const Job& job, const SampleInput& sample) {
  return Function(job).Score(sample);
}

Outcome CheckSyntax(const std::string& name, const std::string& script) {
  if (script.size() > kMaxScriptBytes) {
    return Failed(Status::kScriptError, "the script has " + std::to_string(script.size()) +
                                            " bytes; at most 65536 are allowed");
  }
  Outcome outcome;
  outcome.score = 0.0;
  lua_State* const state = luaL_newstate();
  if (state == nullptr) throw std::bad_alloc();
  if (luaL_loadbufferx(state, script.data(), script.size(), ("@" + name).c_str(), "t") != LUA_OK) {
    const char* const message = lua_tostring(state, -1);
    outcome = Failed(Status::kScriptError, message != nullptr ? message : "it cannot be compiled");
    // "NAME:12: what"
    const std::string prefix = name + ":";
    if (outcome.message.compare(0, prefix.size(), prefix) == 0) {
      std::size_t end = 0;
      const std::string rest = outcome.message.substr(prefix.size());
      try {
        outcome.line = std::stoi(rest, &end);
      } catch (const std::exception&) {
        end = 0;
      }
      if (rest.compare(end, 2, ": ") == 0) outcome.message = rest.substr(end + 2);
    }
  }
  lua_close(state);
  return outcome;
}

}  // namespace temper::reward
