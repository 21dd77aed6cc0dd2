#pragma once
// Checkpoints of a run: a Hugging Face folder with the optimizer beside it, whole or not at all.
#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "learner/communicator.h"
#include "learner/core/checkpoint_folder.h"
#include "learner/policy.h"

namespace temper::learner {

/// What a checkpoint holds, copied from a policy at one moment: training goes on while it is
/// written. RUN/checkpoints/step-000100/ (learner/core/checkpoint_folder.h has the rest):
///   model.safetensors, config.json, tokenizer files   the published weights: what actors ran
///   optimizer.safetensors                             F32 master.NAME, exp_avg.NAME,
///                                                     exp_avg_sq.NAME of what is trained
///   adapter/                                          of a policy with adapters: PEFT's folder
///   reference.safetensors                             `reference`'s masters (one that follows the
///                                                     policy)
class Snapshot {
 public:
  /// `policy` outlives it; `model_dir` is the model that the run began with. Every one of several
  /// `ranks` makes one, the root's alone holds anything: it has the others' moments. Throws
  /// MachineError where their weights are not the same.
  Snapshot(Policy& policy, const std::string& model_dir, const Parameters* reference = nullptr,
           Communicator* ranks = nullptr);
  /// Writes and fsyncs the files. Throws MachineError with errno's text.
  void Write(const std::string& dir) const;

 private:
  void WriteModel(const std::string& dir) const;

  Policy& policy_;
  const std::string model_dir_;
  TrainedBuffers trained_;  // of the policy; the copies below have its layout
  std::vector<std::byte> published_;
  std::vector<float> values_, moment1_, moment2_;
  std::vector<float> reference_;
};

/// Saves checkpoints beside training, one at a time.
class CheckpointSaver {
 public:
  CheckpointSaver(std::string run_dir, int keep) : run_dir_(std::move(run_dir)), keep_(keep) {}
  /// Waits for the one under way; its error is lost.
  ~CheckpointSaver();

  struct Saved {
    std::int64_t step;
    std::string name;  // of its folder
  };
  /// Begins to write one, after the one under way.
  void Save(const TrainState& state, std::shared_ptr<const Snapshot> snapshot);
  /// The one that has become durable since the last call, if any; with `wait` after the one under
  /// way. Throws what writing it threw.
  std::optional<Saved> Take(bool wait);

 private:
  const std::string run_dir_;
  const int keep_;
  std::future<Saved> writing_;
};

/// A policy as a checkpoint has it: what is trained with its moments, and the very bytes that the
/// actors ran. Adapters are merged into the weights of `model_dir`. Throws UserError for other
/// tensors than the model's.
void Restore(const std::string& dir, const std::string& model_dir, Policy& policy);

/// Masters of the reference policy that a checkpoint holds. Throws UserError as Restore.
void LoadReference(const std::string& dir, Parameters& parameters);

/// The published weights as a safetensors file, whole or not at all:
/// RUN/versions/v000001.safetensors.
void SaveVersion(const std::string& run_dir, std::uint32_t version, const Published& published);

}  // namespace temper::learner
