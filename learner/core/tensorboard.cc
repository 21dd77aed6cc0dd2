#include "learner/core/tensorboard.h"

#include <unistd.h>

#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "configs/crc32c.h"
#include "configs/error.h"

namespace temper::learner {
namespace {

void PutLittle(std::string* out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

void PutVarint(std::string* out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

// Protobuf's wire types: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
void PutTag(std::string* out, int field, int type) {
  PutVarint(out, static_cast<std::uint64_t>(field) << 3 | static_cast<std::uint64_t>(type));
}

void PutBytes(std::string* out, int field, const std::string& bytes) {
  PutTag(out, field, 2);
  PutVarint(out, bytes.size());
  *out += bytes;
}

/// Event { double wall_time = 1; int64 step = 2; ... }
std::string EventAt(std::int64_t step) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::string event;
  PutTag(&event, 1, 1);
  PutLittle(&event, std::bit_cast<std::uint64_t>(std::chrono::duration<double>(now).count()), 8);
  PutTag(&event, 2, 0);
  PutVarint(&event, static_cast<std::uint64_t>(step));
  return event;
}

std::uint32_t MaskedCrc(const std::string& bytes) {
  const std::uint32_t crc = configs::Crc32c(bytes);
  return std::rotr(crc, 15) + 0xa282ead8u;
}

}  // namespace

TensorBoard::TensorBoard(const std::string& dir, std::int64_t after_step) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::system_clock::now().time_since_epoch());
  // Readers take the files of a folder in the order of their names.
  for (int i = 0; file_ == nullptr; ++i) {
    path_ = dir + "/events.out.tfevents." + std::to_string(seconds.count()) + "." + host + "." +
            std::to_string(getpid()) + "." + std::to_string(i);
    file_.reset(std::fopen(path_.c_str(), "wbx"));
    if (file_ == nullptr && errno != EEXIST) {
      throw MachineError(path_ + ": " + std::strerror(errno) + "; cannot write TensorBoard events");
    }
  }
  std::string first = EventAt(0);
  PutBytes(&first, 3, "brain.Event:2");  // file_version
  Record(first);
  if (after_step > 0) {
    std::string restart = EventAt(after_step + 1);
    PutBytes(&restart, 7, std::string("\x08\x01", 2));  // session_log { status = START }
    Record(restart);
  }
}

void TensorBoard::Scalars(std::int64_t step,
                          const std::vector<std::pair<std::string, double>>& values) {
  std::string summary;
  for (const auto& [tag, value] : values) {
    std::string item;  // Summary.Value { string tag = 1; float simple_value = 2; }
    PutBytes(&item, 1, tag);
    PutTag(&item, 2, 5);
    PutLittle(&item, std::bit_cast<std::uint32_t>(static_cast<float>(value)), 4);
    PutBytes(&summary, 1, item);
  }
  std::string event = EventAt(step);
  PutBytes(&event, 5, summary);
  Record(event);
}

void TensorBoard::Record(const std::string& event) {
  std::string record;
  PutLittle(&record, event.size(), 8);
  PutLittle(&record, MaskedCrc(record), 4);
  record += event;
  PutLittle(&record, MaskedCrc(event), 4);
  if (std::fwrite(record.data(), 1, record.size(), file_.get()) != record.size() ||
      std::fflush(file_.get()) != 0) {
    throw MachineError(path_ + ": " + std::strerror(errno));
  }
}

}  // namespace temper::learner
