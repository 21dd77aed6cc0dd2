#pragma once
// A loaded script: its chunk runs once, and every call starts from the very state that the chunk
// left behind.
#include <span>
#include <string>
#include <vector>

#include "reward/arena.h"
#include "reward/lua_guard.h"
#include "reward/lua_values.h"
#include "reward/sandbox.h"

namespace temper::reward {

/// Nothing a script keeps can reach the next call, and the same sample gives the same answer first
/// and thousandth, here and in any other process: after the chunk the state's memory is saved, and
/// put back before each call. The chunk and each sample have the job's instructions and memory.
/// Not thread-safe; may hang inside a C function: see RunFunction.
class LuaScript {
 public:
  explicit LuaScript(const Job& job);
  LuaScript(const LuaScript&) = delete;

  /// ok (score 0) if the chunk ran and defines score() or score_group(), else why not.
  const Outcome& loaded() const { return loaded_; }
  /// score_group() is there and is used for groups.
  bool scores_groups() const { return has_group_; }
  bool makes_prompts() const { return has_prompts_; }

  /// A script with score_group() alone sees a group of one.
  Outcome Score(const SampleInput& sample);
  /// score_group() once for all, with everybody's instructions, else score() for each. A failure of
  /// score_group() is everybody's.
  std::vector<Outcome> ScoreGroup(std::span<const SampleInput> samples);

  struct Rows {
    Outcome outcome;                // ok (score 0) or why there are none
    std::vector<std::string> rows;  // JSON objects
  };
  /// prompts(rng, n): exactly n tables with `prompt`. The same (seed, batch, n) gives the same
  /// rows.
  Rows Prompts(std::uint64_t seed, std::uint64_t batch, int n);

 private:
  struct Call;
  static int LoadBody(lua_State* state);
  static int ScoreBody(lua_State* state);
  static int GroupBody(lua_State* state);
  static int PromptsBody(lua_State* state);
  static int Protected(lua_State* state);

  void Begin(std::int64_t share, std::uint64_t random_seed);
  void Run(lua_CFunction body, Call* call);
  void Judge(Outcome* outcome) const;
  void TakeTrace(Outcome* outcome);

  const Job job_;
  Arena arena_;
  Guard guard_;
  std::size_t saved_used_ = 0;
  Outcome loaded_;
  bool has_score_ = false, has_group_ = false, has_prompts_ = false;
  SampleJson json_;
  std::string printed_;
  std::vector<std::int64_t> line_counts_;
};

}  // namespace temper::reward
