#pragma once
// What supervised training minimises: the next tokens of rows, or the order of preference pairs.
#include <memory>

#include "configs/config.h"
#include "engine/tokenizer.h"
#include "learner/update.h"

namespace temper::sft {

/// One step's forwards and backwards.
struct StepReport {
  double loss = 0;
  std::int64_t tokens = 0;  // forwarded, without padding
  Json metrics = Json::object();
  learner::ExpertLoads loads;
  double forward = 0, backward = 0;  // seconds
};

class Objective {
 public:
  virtual ~Objective() = default;
  /// Tokens of each training row.
  virtual const std::vector<std::int64_t>& lengths() const = 0;
  /// Adds the gradient of the loss of these rows, whatever micro-batches they are cut into. Of
  /// several ranks each adds that of its own micro-batches; the report is of all.
  virtual StepReport Train(const std::vector<std::int64_t>& rows) = 0;
  /// eval_* of data.eval's rows; null where sft.eval_steps asks for none.
  virtual Json Evaluate() = 0;
};

/// Mean of -log p over the trained tokens, plus the MTP layers'. Throws UserError naming a row.
std::unique_ptr<Objective> MakeNextTokens(const configs::Config& config,
                                          const engine::Tokenizer& tokenizer,
                                          learner::Policy& policy, learner::Communicator& ranks);

/// Mean over pairs of -log sigmoid(score(chosen) - score(rejected)) (Bradley-Terry, as TRL's
/// RewardTrainer) of a policy with a scalar head; metrics accuracy, margin, mean_reward. A pair's
/// common beginning is computed once. Throws UserError naming a row.
std::unique_ptr<Objective> MakePreferences(const configs::Config& config,
                                           const engine::Tokenizer& tokenizer,
                                           learner::Policy& policy, learner::Communicator& ranks);

}  // namespace temper::sft
