// Streams tensors into one safetensors file.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "configs/error.h"
#include "configs/files.h"
#include "configs/json.h"
#include "engine/safetensors.h"
#include "kernels/bf16.h"

namespace temper::engine {
namespace {

// Compact JSON, padded by spaces so that the data starts at a multiple of 8 bytes.
std::string HeaderText(const std::vector<SafetensorsWriter::Entry>& entries,
                       const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) text += "\"__metadata__\":" + Json(metadata).dump();
  std::uint64_t at = 0;
  for (const auto& entry : entries) {
    const TensorInfo info{entry.dtype, entry.shape};
    const std::uint64_t end =
        at + static_cast<std::uint64_t>(info.count()) * DtypeSize(entry.dtype);
    const Json value = {{"dtype", DtypeName(entry.dtype)},
                        {"shape", Json::array_t(entry.shape.begin(), entry.shape.end())},
                        {"data_offsets", {at, end}}};
    if (text.size() > 1) text += ',';
    text += Json(entry.name).dump() + ":" + value.dump();
    at = end;
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

}  // namespace

struct SafetensorsWriter::State {
  std::string path;
  std::vector<Entry> entries;
  std::size_t next = 0;       // entry being written
  std::uint64_t written = 0;  // bytes of it
  int fd = -1;

  ~State() {
    if (fd < 0) return;
    ::close(fd);
    configs::RemoveHalfWritten(path);
  }
  [[noreturn]] void Fail(const std::string& what, int error) const {
    throw MachineError(path + ": " + what + ": " + std::generic_category().message(error));
  }
  void WriteAll(const std::byte* data, std::size_t size) const {
    while (size > 0) {
      const ssize_t n = ::write(fd, data, std::min<std::size_t>(size, 1u << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) Fail("write failed", errno);
      data += n;
      size -= static_cast<std::size_t>(n);
    }
  }
  std::uint64_t Bytes(std::size_t i) const {
    return static_cast<std::uint64_t>(TensorInfo{entries[i].dtype, entries[i].shape}.count()) *
           DtypeSize(entries[i].dtype);
  }
  void SkipEmpty() {
    while (next < entries.size() && Bytes(next) == 0) ++next;
  }
  const Entry& Current(std::size_t bytes) const {
    if (next == entries.size() || bytes > Bytes(next) - written) {
      throw std::logic_error(path + ": more bytes than the tensors declared");
    }
    return entries[next];
  }
};

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<Entry> entries,
                                     std::map<std::string, std::string> metadata)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.path = path;
  s.entries = std::move(entries);
  const std::string text = HeaderText(s.entries, metadata);
  s.fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (s.fd < 0) s.Fail("cannot be created", errno);
  const std::uint64_t length = text.size();
  s.WriteAll(reinterpret_cast<const std::byte*>(&length), sizeof length);
  s.WriteAll(reinterpret_cast<const std::byte*>(text.data()), text.size());
  s.SkipEmpty();
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::Write(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  State& s = *state_;
  s.Current(bytes.size());
  s.WriteAll(bytes.data(), bytes.size());
  s.written += bytes.size();
  if (s.written == s.Bytes(s.next)) {
    s.written = 0;
    ++s.next;
    s.SkipEmpty();
  }
}

void SafetensorsWriter::WriteFloats(std::span<const float> values) {
  if (values.empty()) return;
  const Entry& entry = state_->Current(0);
  if (entry.dtype == Dtype::kF32) {
    Write(std::as_bytes(values));
    return;
  }
  if (entry.dtype != Dtype::kBf16) {
    throw std::logic_error(state_->path + ": floats given for " + DtypeName(entry.dtype));
  }
  constexpr std::size_t kChunk = std::size_t{1} << 20;
  std::vector<std::uint16_t> rounded;
  for (std::size_t at = 0; at < values.size(); at += kChunk) {
    const auto part = values.subspan(at, std::min(kChunk, values.size() - at));
    rounded.resize(part.size());
    kernels::EncodeBf16(part.data(), std::int64_t(part.size()), rounded.data());
    Write(std::as_bytes(std::span(rounded)));
  }
}

void SafetensorsWriter::WriteInts(std::span<const std::int32_t> values) {
  if (values.empty()) return;
  if (state_->Current(0).dtype != Dtype::kI32) {
    throw std::logic_error(state_->path + ": integers given for another dtype");
  }
  Write(std::as_bytes(values));
}

void SafetensorsWriter::Close() {
  State& s = *state_;
  if (s.next != s.entries.size()) {
    throw std::logic_error(s.path + ": tensor " + s.entries[s.next].name + " was not written");
  }
  if (::fsync(s.fd) != 0) s.Fail("fsync failed", errno);
  if (::close(std::exchange(s.fd, -1)) != 0) s.Fail("close failed", errno);
}

}  // namespace temper::engine
