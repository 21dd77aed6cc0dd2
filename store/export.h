#pragma once
// Rollouts of a run as JSON rows for other programs, and as rows to fine-tune on.
#include <functional>
#include <string>

#include "configs/json.h"

namespace temper::store {

struct ExportOptions {
  /// An SQL expression over the columns of rollout and prompt_group; "" = all rollouts, for `sft`
  /// those that ended by themselves with a score.
  std::string where;
  bool sft = false;  // {"prompt", "completion", "score", "rollout"} rows instead of whole rollouts
  int best_of = 0;   // so many of each group, the highest scores first; 0 = all
};

/// Gives an object a rollout, by group and sample (with best_of by group and score). A whole
/// rollout is what `runs show RUN ROLLOUT` shows; an sft row has the prompt as the dataset spells
/// it and the completion as text, or as an assistant's message where the prompt is a conversation.
/// Throws UserError for a bad expression, and for sft where a prompt is token ids.
void ExportRun(const std::string& run_dir, const ExportOptions& options,
               const std::function<void(const Json&)>& give);

}  // namespace temper::store
