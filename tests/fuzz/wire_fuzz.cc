#include <algorithm>
#include <cstring>
#include <vector>

#include "configs/crc32c.h"
#include "tests/fuzz/fuzz.h"
#include "wire/protocol.h"

const char* const kFuzzWords[] = {
    "\"arrays\":", "[\"u8\",1]",   "[\"i32\",2]",  "\"session\":", "\"grp\":", "\"held\":",
    "\"finish\":", "\"samples\":", "\"version\":", "stop",         "TMPR",     nullptr};

namespace {

using temper::wire::Bytes;

/// u8 flags, then frames as u32 length and bytes. Flag 1: the preamble's lengths and checksum are
/// made right, so that mutations reach what lies behind them.
std::vector<Bytes> FramesOf(std::string_view input) {
  std::vector<Bytes> frames;
  if (input.empty()) return frames;
  const bool repair = (input[0] & 1) != 0;
  input.remove_prefix(1);
  while (input.size() >= 4 && frames.size() < 300) {
    std::uint32_t size;
    std::memcpy(&size, input.data(), 4);
    input.remove_prefix(4);
    const std::size_t n = std::min<std::size_t>(size, input.size());
    frames.push_back(Bytes::Copy(input.substr(0, n)));
    input.remove_prefix(n);
  }
  if (!repair || frames.size() < 2 || frames[0].view.size() < 16) return frames;
  std::vector<std::byte> preamble(frames[0].view.begin(), frames[0].view.begin() + 16);
  const std::uint16_t version = temper::wire::kWireVersion;
  const auto length = static_cast<std::uint32_t>(frames[1].view.size());
  std::memcpy(preamble.data(), "TMPR", 4);
  std::memcpy(preamble.data() + 4, &version, 2);
  std::memcpy(preamble.data() + 8, &length, 4);
  std::uint32_t crc = temper::configs::Crc32c(std::span<const std::byte>(preamble).first(12));
  for (std::size_t i = 1; i < frames.size(); ++i) {
    crc = temper::configs::Crc32c(frames[i].view, crc);
  }
  std::memcpy(preamble.data() + 12, &crc, 4);
  frames[0] = Bytes::Copy(std::span<const std::byte>(preamble));
  return frames;
}

/// A ProtocolError of one line, or a value that survives another journey.
template <class T>
void Read(const temper::wire::Message& message) {
  using namespace temper;
  try {
    const T value = T::Decode(message);
    wire::Message again;
    try {
      again = wire::Decode(wire::Encode(value.Encode()));
    } catch (const std::logic_error&) {
      return;  // texts that a header holds escaped may pass its limit
    }
    T::Decode(again);
  } catch (const wire::ProtocolError& error) {
    const std::string_view what = error.what();
    fuzz::Require(!what.empty() && what.size() < 4000, "an error without end");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace temper::wire;
  const std::vector<Bytes> frames = FramesOf({reinterpret_cast<const char*>(data), size});
  Message message;
  try {
    message = Decode(frames);
  } catch (const ProtocolError&) {
    return 0;
  }
  Read<Hello>(message);
  Read<Welcome>(message);
  Read<Heartbeat>(message);
  Read<Goodbye>(message);
  Read<Refuse>(message);
  Read<WeightsPull>(message);
  Read<WeightsChunk>(message);
  Read<WeightsLoaded>(message);
  Read<Grant>(message);
  Read<Rollout>(message);
  Read<Ack>(message);
  Read<ScoreRequest>(message);
  Read<ScoreResult>(message);
  Read<Scripts>(message);
  return 0;
}
