#pragma once
// Rollouts as a Parquet file, in builds that were given Arrow (-DTEMPER_ARROW=DIR).
#include <memory>
#include <string>

#include "configs/json.h"

namespace temper::store {

/// One row a whole rollout of ExportRun. Columns: name, state, reason, actor, text, finish_reason,
/// status, prompt, row and parts (JSON) string; grp, sample, attempt, version, version_last, seed,
/// trained_step, lag, received_ms int64; score, advantage double; prompt_ids and ids list<int32>;
/// logp list<float>; versions list<int64>; loss_mask list<int8>. Null where the rollout has none.
class ParquetWriter {
 public:
  /// Throws UserError where the build has no Arrow, MachineError where PATH can't be written.
  explicit ParquetWriter(const std::string& path);
  ~ParquetWriter();
  void Add(const Json& rollout);
  /// Without it the file has no footer, so that no reader takes it.
  void Close();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::store
