#pragma once
// `temper grpo --from RUN`: the batches that another run trained, in the place of actors.
#include <memory>
#include <string>

#include "learner/core/service.h"

namespace temper::learner {

/// Gives the rollouts of RUN in the order in which RUN trained them, with the scores, log-probs and
/// versions that they have there, and keeps copies in a database of its own. No socket, no thread.
class StoredBatches : public Batches {
 public:
  struct Options {
    configs::Config config;
    std::string from;      // RUN
    std::string numerics;  // of this run
    int valid_ids = 0;
    std::optional<std::int64_t> resume_step;
  };
  /// Throws UserError: another group size or number of groups, fewer steps than grpo.max_steps, a
  /// setting that needs actors, a resume from another RUN or of a run that had actors.
  explicit StoredBatches(Options options);
  ~StoredBatches() override;

  void Publish(std::shared_ptr<const WeightSet>) override {}  // nobody runs them
  Batch NextBatch(std::int64_t batch) override;
  void CommitStep(const store::StepRow& step, const std::vector<store::TrainedSample>& trained,
                  const Json& metrics, const std::vector<ScoredGroup>& passed_over = {}) override;
  std::vector<ScoredGroup> Evaluate(std::vector<EvalRow> rows) override;
  void SetCheckpoint(std::int64_t step, const std::string& folder) override;
  ServiceStats TakeStats() override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Throws UserError where the run in `run_dir`, to be resumed, was trained --from something else
/// than `from` ("" = with actors).
void CheckFrom(const std::string& run_dir, const std::string& from);

}  // namespace temper::learner
