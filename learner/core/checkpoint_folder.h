#pragma once
// How a checkpoint, or a kept version, comes to a run's folder: whole or not at all.
#include <cstdint>
#include <functional>
#include <string>

#include "configs/json.h"

namespace temper::learner {

/// state.json: where training stands, all but the tensors.
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

/// Makes RUN/checkpoints/step-N: `write` puts its files, each fsynced, into the folder aside that
/// it is given; then state.json, manifest.json {"format": 1, "files": [{"name", "size",
/// "sha256"}]}, fsync of the folder, rename, the symlink `latest`, fsync of checkpoints/, and all
/// but the last `keep` (0 = all) are removed. Returns the folder's name "step-000100". Throws
/// MachineError with errno's text, and what `write` throws.
std::string WriteCheckpointFolder(const std::string& run_dir, const TrainState& state, int keep,
                                  const std::function<void(const std::string& dir)>& write);

struct FoundCheckpoint {
  std::string dir;
  TrainState state;
};

/// The newest checkpoint whose manifest holds; torn ones are named on stderr and skipped. Throws
/// UserError where none is left.
FoundCheckpoint FindCheckpoint(const std::string& run_dir);

/// Makes RUN/versions/v000001.safetensors: `write` fsyncs the path aside that it is given.
void WriteVersionFile(const std::string& run_dir, std::uint32_t version,
                      const std::function<void(const std::string& path)>& write);

/// Applies keep_versions ("all", a number, "checkpoints") after `newest` was published: removes
/// RUN/versions files that go.
void PruneVersions(const std::string& run_dir, const std::string& keep_versions,
                   std::uint32_t newest);

}  // namespace temper::learner
