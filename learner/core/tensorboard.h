#pragma once
// Scalars in TensorBoard's event files: TFRecords of hand-written protobuf.
//
//   file   := record*
//   record := length:u64 masked_crc(length):u32 event masked_crc(event):u32       little-endian
//   event  := wall_time step (file_version | summary | session_log)               protobuf,
//   tensorflow/core/util/event.proto
//
// masked_crc(x) = rotate_right(crc32c(x), 15) + 0xa282ead8.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace temper::learner {

class TensorBoard {
 public:
  /// Starts a new event file in `dir`, which is made if missing. Readers forget what earlier files
  /// say of steps > `after_step` (a run that was resumed). Throws MachineError.
  TensorBoard(const std::string& dir, std::int64_t after_step);

  /// One event with all values of a step. Throws MachineError with errno's text.
  void Scalars(std::int64_t step, const std::vector<std::pair<std::string, double>>& values);

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  void Record(const std::string& event);

  std::string path_;
  std::unique_ptr<std::FILE, CloseFile> file_;
};

}  // namespace temper::learner
