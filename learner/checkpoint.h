#pragma once
// Checkpoints of a run: a Hugging Face folder with the optimizer beside it, whole or not at all.
#include <cstdint>
#include <optional>
#include <string>

#include "configs/json.h"
#include "learner/policy.h"

namespace temper::learner {

/// RUN/checkpoints/step-000100/:
///   model.safetensors, config.json, tokenizer files   the published weights: what actors ran
///   optimizer.safetensors                             master.NAME, exp_avg.NAME, exp_avg_sq.NAME,
///   F32 state.json                                        TrainState manifest.json {"format": 1,
///   "files": [{"name", "size", "sha256"}]}
struct TrainState {
  std::int64_t step = 0;      // optimizer steps done
  std::uint32_t version = 0;  // weights published last
  std::uint64_t epoch = 0;    // data cursor: the next row is row `position` of this epoch's order
  std::uint64_t position = 0;
  std::uint64_t next_group = 0;  // GRPO: first group of the next batch
  std::int64_t incarnation = 0;
  std::string numerics;  // "canon-1/fp32/cache-fp32"
  Json config;           // resolved
};

/// `reference`: its masters too, reference.safetensors (one that follows the policy).
/// Writes step-N.tmp, fsyncs everything, renames, fsyncs the folder, moves the symlink `latest`,
/// removes all but the last `keep` (0 = all). Returns the folder's name "step-000100". Throws
/// MachineError with errno's text.
std::string SaveCheckpoint(const std::string& run_dir, const TrainState& state, Policy& policy,
                           const std::string& tokenizer_dir, int keep,
                           const Parameters* reference = nullptr);

struct FoundCheckpoint {
  std::string dir;
  TrainState state;
};

/// The newest checkpoint whose manifest holds; torn ones are named on stderr and skipped. Throws
/// UserError where none is left.
FoundCheckpoint FindCheckpoint(const std::string& run_dir);

/// Masters and moments of a checkpoint. Throws UserError for other tensors than the model's.
void LoadOptimizer(const std::string& dir, Parameters& parameters);

/// Masters of the reference policy that a checkpoint holds. Throws UserError as LoadOptimizer.
void LoadReference(const std::string& dir, Parameters& parameters);

/// The published weights as a safetensors file, whole or not at all:
/// RUN/versions/v000001.safetensors.
void SaveVersion(const std::string& run_dir, std::uint32_t version, const Published& published);

/// Applies keep_versions ("all", a number, "checkpoints") after `newest` was published: removes
/// RUN/versions files that go.
void PruneVersions(const std::string& run_dir, const std::string& keep_versions,
                   std::uint32_t newest);

}  // namespace temper::learner
