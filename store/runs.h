#pragma once
// What a folder of runs, one run and one rollout look like to a reader.
#include <string>
#include <vector>

#include "configs/json.h"

namespace temper::store {

/// One object a run folder in DIR (or DIR itself if it is one), or one folder deeper, by name:
/// `name, path, state, steps, reward, rollouts, dropped, created_ms`; state is running | finished |
/// stopped | broken (then `error`). A run without a trajectory database (sft) takes `steps` from
/// metrics.jsonl; what is unknown is null. Throws UserError when DIR cannot be read.
std::vector<Json> ListRuns(const std::string& dir);

/// The list's fields plus `temper_version, numerics, incarnation, version, checkpoint,
/// rollouts_by_state, statuses, dropped_reasons, last_steps` (the newest 10, oldest first). Throws
/// UserError when RUN has no trajectory database.
Json ShowRun(const std::string& run_dir);

/// Everything about one rollout: the stored columns, `name, prompt, row, parts`, arrays as numbers.
/// NAME is `g41.s3@v17`, `g41.s3.a1@v17` or without its version. Throws UserError for a name of
/// another form, a rollout that is not there, or another version than the stored one.
Json ShowRollout(const std::string& run_dir, const std::string& name);

/// The same for people.
std::string ListText(const std::vector<Json>& runs);
std::string RunText(const Json& run);
std::string RolloutText(const Json& rollout);

}  // namespace temper::store
