#pragma once
// A run's metric lines: RUN/metrics.jsonl, RUN/tb/ and stdout say the same.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "configs/json.h"
#include "learner/core/tensorboard.h"

namespace temper::learner {

class MetricsLog {
 public:
  /// `resumed_step` 0: a fresh run. Otherwise lines of later steps, and a torn last line, leave
  /// metrics.jsonl first. Throws MachineError with errno's text.
  MetricsLog(const std::string& run_dir, std::int64_t resumed_step);

  /// `line` is an object with "step"; its numbers become TensorBoard scalars under their key,
  /// nested ones under "a/b". Written and flushed before it returns (not fsynced: metrics of lost
  /// steps come again on resume).
  void Write(const Json& line);

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::string path_;
  std::unique_ptr<std::FILE, CloseFile> file_;
  TensorBoard tensorboard_;
};

}  // namespace temper::learner
