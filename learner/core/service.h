#pragma once
// The serving half of a learner: grants prompts, stores rollouts, has them scored, hands complete
// groups to training.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "configs/config.h"
#include "engine/fabric.h"
#include "learner/core/rollout_arrays.h"
#include "store/trajectories.h"
#include "wire/shared_bytes.h"

namespace temper::learner {

/// A prompt to be granted; group g of a run is always the same prompt (dataset order is a function
/// of seed and epoch). Called from the training thread only.
struct PromptSource {
  virtual ~PromptSource() = default;
  virtual store::GroupRow Prompt(
      std::uint64_t grp) const = 0;  // grp, prompt_json, row_json, prompt_ids filled
  virtual std::string Answer(std::uint64_t grp, bool* has) const = 0;
  virtual std::uint64_t rows() const { return 0; }  // of the data set; 0 = endless
};

/// What the actors run, as bytes: a tensor table and one blob, immutable once published.
struct WeightSet {
  std::uint32_t version = 0;
  struct Tensor {
    std::string name;
    std::string dtype;
    std::vector<std::int64_t> shape;
    std::uint64_t begin, end;
    std::string sha256;
  };
  std::vector<Tensor> tensors;  // RequiredTensors order
  wire::SharedBytes bytes;  // actors of this machine copy them from there
  /// engine::Canary of these weights in the run's numerics. None: the first actor's counts.
  std::optional<std::uint32_t> canary = std::nullopt;
};

struct ScoredGroup {
  std::uint64_t grp = 0;
  std::vector<std::int32_t> prompt_ids;
  std::vector<store::RolloutRow>
      samples;  // by sample number; dropped ones keep their place with state "dropped"
  std::vector<std::vector<store::RewardPart>> parts;  // a sample
};

/// The groups of one batch, ascending.
struct Batch {
  std::vector<ScoredGroup> groups;
  std::vector<ScoredGroup> passed_over;  // dynamic_sampling: no spread of rewards
  std::uint64_t next_group = 0;          // where the next batch begins
};

struct ServiceStats {              // since the last call of TakeStats
  double wait_seconds = 0;         // NextBatch blocked
  double weights_seconds = 0;      // the part of it before an actor had the newest weights
  double reward_seconds = 0;       // sum of reward micros
  double reward_wait_seconds = 0;  // the part of wait_seconds after a batch's last rollout
  std::uint64_t completion_tokens = 0;
  int actors = 0, reward_workers = 0;
  std::vector<std::pair<std::string, int>>
      reward_failures;  // status -> count (not ok, not not_applicable)
  std::vector<std::pair<std::string, std::uint64_t>>
      refused;                        // reason -> messages and handshakes since the run began
  std::uint64_t published_bytes = 0;  // sent to actors
  std::int64_t loaded_at = 0;  // steady microseconds: the newest weights' first actor; 0: none
};

/// Where training's batches come from, and where what became of them is kept. Called from the
/// training thread.
class Batches {
 public:
  virtual ~Batches() = default;
  /// Actors get it before their next grant. The set with the highest version is served; older ones
  /// go when no grant names them.
  virtual void Publish(std::shared_ptr<const WeightSet> weights) = 0;
  /// Blocks until the groups of `batch` (from 1; with one optimizer step a batch its step) are
  /// complete and scored.
  virtual Batch NextBatch(std::int64_t batch) = 0;
  /// One transaction: rows -> trained, those passed over -> dropped as zero_std, the step's row,
  /// its metrics. Returns after the commit.
  virtual void CommitStep(const store::StepRow& step,
                          const std::vector<store::TrainedSample>& trained, const Json& metrics,
                          const std::vector<ScoredGroup>& passed_over = {}) = 0;
  struct EvalRow {
    store::GroupRow row;  // prompt_json, row_json, prompt_ids
    std::optional<std::string> answer;
  };
  /// Greedy completions of these rows by the newest weights, scored; in their order. Blocks.
  virtual std::vector<ScoredGroup> Evaluate(std::vector<EvalRow> rows) = 0;
  virtual void SetCheckpoint(std::int64_t step, const std::string& folder) = 0;
  virtual ServiceStats TakeStats() = 0;
};

/// Owns the ROUTER socket, the database and the inbox on one thread. Methods are called from the
/// training thread. Errors of the serving thread (disk full, port in use, on_error: stop) are
/// rethrown by the next call.
class Service : public Batches {
 public:
  struct Options {
    configs::Config config;
    std::string run_dir;                 // writes run_dir/endpoint
    std::string bind;                    // "" = from config
    std::string numerics;                // "canon-1/fp32/cache-fp32"
    std::string model_dir;               // for the actors' config.json (welcome)
    int valid_ids = 0;                   // the tokenizer's size; >= 1
    std::vector<std::int32_t> stop_ids;  // end a sample; not empty
    ExpertShape experts;                 // that rollouts must carry (grpo.routing_replay)
    std::shared_ptr<const PromptSource> prompts;
    std::shared_ptr<engine::Fabric> fabric;  // of learner.weights_fabric; null: weights are pulled
    std::optional<std::int64_t> resume_step;    // state.json's step; nullopt = fresh run
    std::optional<std::uint64_t> resume_group;  // first group after it; nullopt: groups_per_step a
                                                // batch
    std::function<std::string(std::span<const std::int32_t>)>
        detokenize;  // completion text, special tokens left out
    /// Starts the zygote in which a changed reward script runs its cases.
    std::vector<std::string> zygote_argv = {"/proc/self/exe", "reward-zygote"};
    double script_period_s = 1;  // between two looks at the reward scripts
  };
  explicit Service(Options options);
  ~Service() override;  // says goodbye to the peers, drains and stops

  void Publish(std::shared_ptr<const WeightSet> weights) override;
  /// In synchronous runs groups are granted only after Publish of the version that the batch trains
  /// on. On resume stored rollouts are taken from the database instead of being generated again.
  /// Throws MachineError naming whom it waited for after peer_timeout_s.
  Batch NextBatch(std::int64_t batch) override;
  void CommitStep(const store::StepRow& step, const std::vector<store::TrainedSample>& trained,
                  const Json& metrics, const std::vector<ScoredGroup>& passed_over = {}) override;
  std::vector<ScoredGroup> Evaluate(std::vector<EvalRow> rows) override;
  void SetCheckpoint(std::int64_t step, const std::string& folder) override;
  ServiceStats TakeStats() override;
  const std::string& endpoint() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::learner
